"""Queries for passages, written by a language model in two steps: first for whom, then what.

After arXiv 2506.05176, section 3: a configuration is chosen for a passage, the query is written to
it, and only pairs that an embedder finds close enough become training examples.
"""
