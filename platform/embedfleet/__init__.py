"""Runs the Qwen3 Embedding family as a fleet: exact prompts, packed engines, gRPC, Ray Serve."""

__version__ = "0.1.0"
