"""What is said of each kind: statuses from what was seen. Pure."""
