"""What a difference between two RayServices does to the Ray cluster that runs.

KubeRay builds a second cluster for any difference in `rayClusterConfig` except in what its hash
leaves out, and in worker groups added at the end (KubeRay 1.6, controllers/ray/utils/util.go:
GenerateHashWithoutReplicasAndWorkersToDelete, rayservice_controller.go:isClusterSpecHashEqual).
What the API server and KubeRay write into it themselves is no difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from embedfleet.rendering.plan import Change, Impact
from embedfleet_operator.rendering.ray_pods import GPU, GPU_PRODUCT_LABEL, OPTIONS_ANNOTATION

__all__ = ["cluster_changes"]

_NEW_CLUSTER: Final = (
    "A second cluster starts beside this one and takes over when every model runs in it: until "
    "then the fleet needs its nodes twice. Calls that run are finished."
)
_ADDED: Final = "Its nodes join the running cluster; nothing is interrupted."
_BOUNDS: Final = "Nodes come and go within the bounds; nothing that runs is touched."
_TOLERATIONS: Final = "Nodes that start from now on have them; those that run keep theirs."

_GROUPS: Final = "workerGroupSpecs"
# The autoscaler's own.
_NOT_OURS: Final = frozenset({"replicas", "scaleStrategy"})
_MUTED: Final[Mapping[str, tuple[str, str]]] = {
    "minReplicas": ("minNodes", _BOUNDS),
    "maxReplicas": ("maxNodes", _BOUNDS),
    "template.spec.tolerations": ("tolerations", _TOLERATIONS),
}

_RESOURCE: Final = r"template\.spec\.containers\.[a-z-]+\.resources\.(?:limits|requests)\."
_FIELDS: Final = (
    (r"rayVersion", "spec.rayVersion"),
    (r"authOptions\.secretName", "spec.auth.tokenSecretName"),
    (r"authOptions|.*\.env\.RAY_AUTH_MODE", "spec.auth"),
    (r"gcsFaultToleranceOptions\.redisAddress", "spec.gcsFaultTolerance.redisAddress"),
    (r"gcsFaultToleranceOptions\.redisPassword", "spec.gcsFaultTolerance.passwordSecretName"),
    (r".*\.template\.spec\.containers\.[a-z-]+\.image$", "spec.image"),
    (r".*\.template\.spec\.imagePullSecrets\.", "spec.imagePullSecrets"),
    (r".*\.template\.spec\.serviceAccountName$", "spec.serviceAccountName"),
    (r".*\.(?:volumeMounts|volumes)\.cache-([a-z0-9-]+)\.", r"spec.model.cache (\1)"),
    (rf"headGroupSpec\.{_RESOURCE}cpu", "spec.head.cpus"),
    (rf"headGroupSpec\.{_RESOURCE}memory", "spec.head.memoryGib"),
    (rf"headGroupSpec\..*{re.escape(OPTIONS_ANNOTATION)}", "what Serve reads when it starts"),
)
_GROUP_FIELDS: Final = (
    (rf"{_RESOURCE}cpu", "cpusPerNode"),
    (rf"{_RESOURCE}memory", "memoryGibPerNode"),
    (rf"{_RESOURCE}{re.escape(GPU)}", "gpusPerNode"),
    (rf"template\.spec\.nodeSelector\.{re.escape(GPU_PRODUCT_LABEL)}", "accelerator"),
    (r"template\.spec\.nodeSelector", "nodeSelector"),
)
"""Manifest's field by place in `rayClusterConfig`, or in a worker group of it."""


def cluster_changes(
    fleet: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[Change]:
    """Compare the specs of two RayServices; every field is named once.

    `fleet` names the resource, such as `Fleet/search`.
    """
    old, new = before["rayClusterConfig"], after["rayClusterConfig"]
    found: dict[str, Change] = {}
    for change in (*_around(fleet, old, new), *_pools(fleet, old, new)):
        # Head and workers say much of the same: the first to differ speaks for all.
        found.setdefault(change.field, change)
    yield from found.values()


def _around(fleet: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """Compare everything but the worker groups."""
    rest = [{k: v for k, v in each.items() if k != _GROUPS} for each in (old, new)]
    for path, values in _differences(*rest):
        field = _field(path, _FIELDS) or f"rayClusterConfig.{path}"
        yield Change(fleet, field, *values, Impact.NEW_CLUSTER, _NEW_CLUSTER)


def _pools(fleet: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    before, after = old.get(_GROUPS, []), new[_GROUPS]
    was, names = ([group["groupName"] for group in each] for each in (before, after))
    if names[: len(was)] != was:
        # KubeRay compares groups by their place.
        yield Change(fleet, "spec.pools", was, names, Impact.NEW_CLUSTER, _NEW_CLUSTER)
        return
    for index, (one, other) in enumerate(zip(before, after, strict=False)):
        yield from _pool(fleet, f"spec.pools[{index}]", one, other)
    for index in range(len(before), len(after)):
        yield Change(fleet, f"spec.pools[{index}]", None, names[index], Impact.START, _ADDED)


def _pool(
    fleet: str, pool: str, old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[Change]:
    for path, values in _differences(old, new):
        muted = next((each for each in _MUTED if path.startswith(each)), None)
        if muted is not None:
            field, reason = _MUTED[muted]
            yield Change(fleet, f"{pool}.{field}", *values, Impact.RECONFIGURE, reason)
            continue
        whole = f"{_GROUPS}.{path}"
        own = _field(path, _GROUP_FIELDS)
        field = _field(whole, _FIELDS) or (f"{pool}.{own}" if own else f"rayClusterConfig.{whole}")
        yield Change(fleet, field, *values, Impact.NEW_CLUSTER, _NEW_CLUSTER)


def _field(path: str, table: tuple[tuple[str, str], ...]) -> str:
    found = ((re.match(pattern, path), field) for pattern, field in table)
    return next((match.expand(field) for match, field in found if match), "")


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[object, object]]]:
    """Yield the path of each leaf that differs and its two values, None where it is missing."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    for path in sorted({*before, *after}):
        values = (before.get(path), after.get(path))
        if values[0] != values[1]:
            yield path, values


def _leaves(value: Mapping[str, Any], under: str = "") -> Iterator[tuple[str, object]]:
    """Flatten, leaving out what means nothing or is somebody else's.

    Go writes empty maps and nulls where nothing was, and KubeRay keeps notes under `ray.io/`.
    """
    for key, item in value.items():
        if (not under and key in _NOT_OURS) or key.startswith("ray.io/"):
            continue
        path = f"{under}.{key}" if under else key
        if isinstance(item, list):
            item = _keyed(item)
        if isinstance(item, Mapping):
            yield from _leaves(item, path)
        elif item is not None:
            yield path, item


def _keyed(items: list[Any]) -> dict[str, Any]:
    """Name the members of a list, so that one more of them moves no other."""
    return {
        str(item["name"]) if isinstance(item, Mapping) and "name" in item else str(index): item
        for index, item in enumerate(items)
    }
