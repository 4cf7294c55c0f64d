"""A model's files from where they lie into a folder: resumed, held to their digests, or refused."""
