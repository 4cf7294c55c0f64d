"""The training recipe of the Qwen3 Embedding paper (arXiv 2506.05176, section 3) as functions."""
