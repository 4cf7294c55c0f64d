"""What the environment says, read once: the only module that looks at environment variables.

Everything has a default, so an empty environment is a valid one. Command line options win over it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Settings", "let_threads_sleep", "limit_tokenizers"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the command line and of fleets started on this machine.

    Attributes:
        home: Folder for the states of local fleets. `EMBEDFLEET_HOME`, by default
            `embedfleet` under `XDG_STATE_HOME` or `~/.local/state`.
        endpoint: `host:port` of the fleet to call; empty means the one that runs on this machine.
            `EMBEDFLEET_ENDPOINT`.
        token: Bearer token of that fleet. `EMBEDFLEET_TOKEN`: an option would show in `ps`.
        environment: The whole environment, for processes started from here.
    """

    home: Path
    endpoint: str
    token: str
    environment: Mapping[str, str]

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the process's environment, or the one given."""
        found = dict(os.environ if environment is None else environment)
        state_home = found.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        home = found.get("EMBEDFLEET_HOME") or str(Path(state_home) / "embedfleet")
        return cls(
            home=Path(home).expanduser().absolute(),
            endpoint=found.get("EMBEDFLEET_ENDPOINT", ""),
            token=found.get("EMBEDFLEET_TOKEN", ""),
            environment=found,
        )


def let_threads_sleep(environment: MutableMapping[str, str] | None = None) -> None:
    """Let threads that wait for one another sleep instead of spin, unless the user set otherwise.

    Called before a tensor library is loaded, which reads it once. Two threads that spin beside
    other work were measured at six times the wall time of two that sleep.
    """
    found = os.environ if environment is None else environment
    found.setdefault("OMP_WAIT_POLICY", "passive")


def limit_tokenizers(num_threads: int) -> None:
    """Let tokenizers use so many threads instead of one for every core of the machine.

    Called before the first batch of texts: the threads are started then, once.
    """
    os.environ["RAYON_NUM_THREADS"] = str(num_threads)
    # One thread of theirs would be one more than the caller's own, with a niceness of its own.
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if num_threads > 1 else "false"
