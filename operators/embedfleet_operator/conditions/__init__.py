"""Conditions as values: the reasons there are, verdicts, and since when they hold."""
