"""What the environment says, read once and in one place.

    EMBEDFLEET_HOME       where the states of local fleets are kept
    EMBEDFLEET_ENDPOINT   host:port of the fleet that commands and clients call
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of this process.

    Attributes:
        home: Folder with one subfolder for each local fleet.
        endpoint: Of the fleet to call; empty means the one that runs here.
        environment: The whole environment, for processes that inherit it.
    """

    home: Path
    endpoint: str
    environment: Mapping[str, str]

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the environment, or the mapping given instead."""
        environment = dict(os.environ if environ is None else environ)
        state = Path(environment.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        return cls(
            home=Path(environment.get("EMBEDFLEET_HOME") or state / "embedfleet"),
            endpoint=environment.get("EMBEDFLEET_ENDPOINT", ""),
            environment=environment,
        )
