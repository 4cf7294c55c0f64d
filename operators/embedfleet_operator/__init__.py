"""Turns the platform's custom resources into what Kubernetes understands."""
