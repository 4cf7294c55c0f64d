"""The Kubernetes cluster: its API with plain values, a copy of what is watched, the Lease."""
