"""The `embedfleet` command: local fleets, manifests, and calls to a running fleet."""
