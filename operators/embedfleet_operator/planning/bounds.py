"""Bounds of pools that changed, as a patch of the cluster that runs.

KubeRay leaves bounds and tolerations out when it compares a RayService with its cluster, and also
writes them to the cluster only when something else differs (KubeRay 1.6, rayservice_controller.go:
shouldUpdateCluster). Without this patch a new `maxNodes` would wait for the next upgrade.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["bounds_patch"]

_BOUNDS: Final = ("minReplicas", "maxReplicas")
_TOLERATIONS: Final = "tolerations"


def bounds_patch(
    cluster: Mapping[str, Any], service: Mapping[str, Any]
) -> tuple[dict[str, Any], ...]:
    """Compare a live RayCluster with its RayService as rendered.

    Returns:
        A JSON patch (RFC 6902) of the RayCluster; empty if there is nothing to do. It fails as a
        whole if groups have moved since they were read.
    """
    running = cluster["spec"].get("workerGroupSpecs", [])
    wanted = {
        group["groupName"]: group
        for group in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    }
    operations: list[dict[str, Any]] = []
    for index, group in enumerate(running):
        if group["groupName"] in wanted:
            path = f"/spec/workerGroupSpecs/{index}"
            changes = _changes(path, group, wanted[group["groupName"]])
            if changes:
                guard = {"op": "test", "path": f"{path}/groupName", "value": group["groupName"]}
                operations += [guard, *changes]
    return tuple(operations)


def _changes(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"op": "add", "path": f"{path}/{field}", "value": new[field]}
        for field in _BOUNDS
        if old.get(field) != new[field]
    ]
    before, after = (each["template"]["spec"].get(_TOLERATIONS, []) for each in (old, new))
    if before != after:
        where = f"{path}/template/spec/{_TOLERATIONS}"
        found.append({"op": "add", "path": where, "value": after})
    return found
