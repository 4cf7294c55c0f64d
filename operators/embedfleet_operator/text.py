"""YAML as people review it: every value written out where it stands, long text line by line."""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["Dumper"]


class Dumper(yaml.SafeDumper):
    """Writes plain values without anchors and aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write values that stand in several places out in each."""
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


Dumper.add_representer(str, _text)
