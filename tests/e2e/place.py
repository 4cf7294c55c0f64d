"""What all pods of a node share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.network import Network

__all__ = ["Image", "Place", "Resource"]

Resource = Mapping[str, Any]


@dataclass(frozen=True)
class Image:
    """What a container has of its image: a command and a folder for those that name none."""

    entrypoint: tuple[str, ...] = ()
    folder: str = "/"


@dataclass(frozen=True)
class Place:
    """What all pods of a node share.

    Attributes:
        folder: Logs and volumes.
        memory: Volumes in memory.
        variables: Those that every container has.
        kept: Folders that every container sees.
        find: Reads a ConfigMap or Secret: namespace, kind, name.
        token: Issues a token: namespace, ServiceAccount.
        automounts: Whether a ServiceAccount's token is mounted: namespace, ServiceAccount.
        certificate: That the API server is verified with.
    """

    network: Network
    folder: Path
    memory: Path
    variables: Mapping[str, str]
    kept: Sequence[Path]
    images: Mapping[str, Image]
    find: Callable[[str, str, str], Resource | None]
    token: Callable[[str, str], str]
    automounts: Callable[[str, str], bool]
    certificate: bytes
