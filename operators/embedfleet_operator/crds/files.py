"""The definitions as text: YAML in one fixed form, so that a change shows as what it is."""

from __future__ import annotations

import yaml

from embedfleet_operator.crds.kinds import KINDS, definition
from embedfleet_operator.text import Dumper

__all__ = ["files"]

_HEADER = "# Written by `python -m embedfleet_operator.crds`. Edit the models, not this file.\n"


def files() -> dict[str, str]:
    """Write each definition, by file name."""
    return {
        f"{kind.plural}.yaml": _HEADER
        + yaml.dump(definition(kind), Dumper=Dumper, sort_keys=False, width=100)
        for kind in KINDS
    }
