"""What a change would do to what runs, before it is done, and how long the last one took. Pure."""
