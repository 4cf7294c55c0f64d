"""What a changed Fleet does to the edge of this machine: a function of two Fleets and a port.

Serve's configuration does not hold these fields, so comparing it cannot show them. Largest messages
are not here: the router takes them too, and is compared with the rest of Serve.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from embedfleet.rendering.plan import Change, Impact
from embedfleet.resources import Fleet

__all__ = ["edge_changes"]

_NEW_PORT: Final = "The edge keeps its port while it runs: take the fleet down and up again."
_NEW_TLS: Final = (
    "The edge reloads: open connections go on as they are, and new ones must be made as it says."
)


def edge_changes(before: Fleet, after: Fleet, port: int) -> Iterator[Change]:
    """Compare the Fleet that was applied with the one wanted; `port` is where the edge listens."""
    resource = f"Fleet/{after.name}"
    was, wanted = before.spec.grpc.port, after.spec.grpc.port
    # A port chosen on the command line stands above the manifest's, whatever that says now.
    if was == port != wanted:
        yield Change(resource, "spec.grpc.port", was, wanted, Impact.NEW_CLUSTER, _NEW_PORT)
    old, new = (_tls(fleet) for fleet in (before, after))
    for field in sorted({*old, *new}):
        if old.get(field) != new.get(field):
            path, values = f"spec.tls.{field}", (old.get(field), new.get(field))
            yield Change(resource, path, *values, Impact.RECONFIGURE, _NEW_TLS)


def _tls(fleet: Fleet) -> dict[str, str]:
    tls = fleet.spec.tls
    return tls.model_dump(mode="json", by_alias=True, exclude_none=True) if tls else {}
