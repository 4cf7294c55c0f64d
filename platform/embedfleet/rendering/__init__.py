"""Resources into the configuration of what runs: pure functions, deterministic text."""
