"""What applying a configuration would do, before it is done: class, cause and what it interrupts.

The classes follow what Serve does with each part of an application (measured on ray 2.60 by process
ids): settings reach running replicas, resources replace them one by one, arguments restart the
application, and ports are read only once. What the table does not know is taken for a restart.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from pydantic.alias_generators import to_camel

from embedfleet.rendering.fitting import FITTED, to_be_fitted
from embedfleet.rendering.names import ROUTER
from embedfleet.rendering.serve import ServeConfig

__all__ = ["Change", "Impact", "Plan", "plan"]


class Impact(IntEnum):
    """What a change does to what runs, mildest first."""

    NO_CHANGE = 0
    START = 1
    RECONFIGURE = 2
    ROLL_REPLICAS = 3
    RESTART_APP = 4
    REMOVE = 5
    NEW_CLUSTER = 6
    REFUSED = 7

    @property
    def label(self) -> str:
        """The class as it is shown, such as `RollReplicas`."""
        return self.name.title().replace("_", "")


_GOLDEN: Final = ("user_config", "golden")
_COMPARED: Final = "Running replicas compare their outputs first; one that misses them is stopped."
_ASKED: Final = "Running replicas take it over; they are asked first whether their checkpoint can."
_MAY_BE_TOO_LONG: Final = (
    "Running replicas take it over, unless it is too long for spec.maxPairTokens: those are "
    "stopped, and calls fail where none is left."
)
_MEANING: Final = {
    Impact.START: "Replicas start; nothing that runs is touched.",
    Impact.RECONFIGURE: "Running replicas take it over; nothing is interrupted.",
    Impact.ROLL_REPLICAS: "Replicas are replaced a few at a time.",
    Impact.RESTART_APP: "Every replica is replaced and loads anew.",
    Impact.REMOVE: "Its replicas finish their requests and stop; new calls get NOT_FOUND.",
    Impact.NEW_CLUSTER: "Read only when the cluster starts: take the fleet down and up again.",
    Impact.REFUSED: "A vector contract in use cannot change: give the new one another name.",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs.

    Attributes:
        resource: Such as `Embedder/docs`.
        field: Path in the manifest, or in Serve's configuration where no field sets it.
        reason: What it means and what it interrupts.
    """

    resource: str
    field: str
    before: object
    after: object
    impact: Impact
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that would happen.

    Attributes:
        unchanged: Resources to which nothing happens.
    """

    changes: tuple[Change, ...] = ()
    unchanged: tuple[str, ...] = ()

    @property
    def impact(self) -> Impact:
        """The gravest impact of any change."""
        return max((change.impact for change in self.changes), default=Impact.NO_CHANGE)

    @property
    def refused(self) -> bool:
        """Whether any change must not be made; then none is."""
        return self.impact is Impact.REFUSED

    def of(self, resource: str) -> Impact:
        """The gravest impact on one resource."""
        impacts = (change.impact for change in self.changes if change.resource == resource)
        return max(impacts, default=Impact.NO_CHANGE)

    def __str__(self) -> str:
        """Each resource with its class, then each field with what it means."""
        return self.told({})

    def told(self, seconds: Mapping[str, int]) -> str:
        """Write the plan, and how long the last change of its gravest class took, by label."""
        lines: list[str] = []
        for resource in dict.fromkeys(change.resource for change in self.changes):
            lines.append(f"{resource}: {self.of(resource).label}")
            for change in self.changes:
                if change.resource != resource:
                    continue
                if change.field:
                    values = f"{_short(change.before)} -> {_short(change.after)}"
                    lines.append(f"  {change.field}: {values} ({change.impact.label})")
                lines.append(f"    {change.reason}")
        if self.unchanged:
            lines.append(f"{Impact.NO_CHANGE.label}: {', '.join(self.unchanged)}")
        if self.impact.label in seconds:
            took = seconds[self.impact.label]
            lines.append(f"{self.impact.label} took {took} s the last time.")
        return "\n".join(lines)


def plan(
    current: ServeConfig | None, desired: ServeConfig, *, immutable: Collection[str] = ()
) -> Plan:
    """Compare what was last applied with what is wanted.

    `immutable` names the applications whose vector contract is in use and must not change;
    without `current` everything starts.
    """
    before, after = _applications(current or {}), _applications(desired)
    changes = list(_cluster_changes(current, desired))
    unchanged: list[str] = []
    for name in sorted({*before, *after}):
        resource = _resource(name, after.get(name) or before[name])
        if name not in after:
            found = [_whole(resource, Impact.REMOVE)]
        elif name not in before:
            found = [_whole(resource, Impact.START)]
        else:
            found = _changes(resource, before[name], after[name], fixed=name in immutable)
        changes.extend(found)
        if not found:
            unchanged.append(resource)
    return Plan(tuple(changes), tuple(unchanged))


_Path = tuple[str, ...]

_ARGUMENTS: Final[Mapping[str, str]] = {
    "source": "spec.model.source",
    "revision": "spec.model.revision",
    "folder": "spec.model.cache",
    "weights": "spec.quantization.weights",
    "backend": "spec.backend",
    "device": "spec.placement.pools",
}
_CONTRACT: Final = frozenset({("args", key) for key in ("source", "revision", "weights")})

_FIELDS: Final[Mapping[_Path, tuple[str, Impact]]] = {
    **{("args", k): (field, Impact.RESTART_APP) for k, field in _ARGUMENTS.items()},
    ("autoscaling_config", "min_replicas"): ("spec.scaling.minReplicas", Impact.RECONFIGURE),
    ("autoscaling_config", "max_replicas"): ("spec.scaling.maxReplicas", Impact.RECONFIGURE),
    ("autoscaling_config", "target_ongoing_requests"): (
        "spec.scaling.targetOngoingRequests", Impact.RECONFIGURE,
    ),
    ("autoscaling_config", "upscale_delay_s"): (
        "spec.scaling.upscaleDelaySeconds", Impact.RECONFIGURE,
    ),
    ("autoscaling_config", "downscale_delay_s"): (
        "spec.scaling.downscaleDelaySeconds", Impact.RECONFIGURE,
    ),
    ("autoscaling_config", "policy"): ("", Impact.RESTART_APP),
    ("graceful_shutdown_timeout_s",): ("spec.rollout.gracefulShutdownSeconds", Impact.RECONFIGURE),
    ("health_check_period_s",): ("spec.rollout.healthCheckPeriodSeconds", Impact.RECONFIGURE),
    ("health_check_timeout_s",): ("", Impact.RECONFIGURE),
    ("logging_config",): ("", Impact.RECONFIGURE),
    ("max_ongoing_requests",): ("", Impact.RECONFIGURE),
    ("max_queued_requests",): ("", Impact.RECONFIGURE),
    ("max_surge_percent",): ("spec.rollout.maxSurgePercent", Impact.RECONFIGURE),
    ("ray_actor_options", "num_cpus"): ("spec.placement.cpus", Impact.ROLL_REPLICAS),
    ("ray_actor_options", "num_gpus"): ("spec.placement.gpuFraction", Impact.ROLL_REPLICAS),
    ("ray_actor_options", "label_selector"): ("spec.placement.pools", Impact.ROLL_REPLICAS),
    ("ray_actor_options", "fallback_strategy"): ("spec.placement.pools", Impact.ROLL_REPLICAS),
    ("ray_actor_options",): ("", Impact.ROLL_REPLICAS),
    ("user_config", "aliases"): ("spec.aliases", Impact.RECONFIGURE),
    ("user_config", "default_instruction"): ("spec.instruction.default", Impact.RECONFIGURE),
    ("user_config", "allow_instruction_override"): (
        "spec.instruction.allowOverride", Impact.RECONFIGURE,
    ),
    ("user_config", "default_dimension"): ("spec.dimension", Impact.RECONFIGURE),
    ("user_config", "allowed_dimensions"): ("spec.allowedDimensions", Impact.RECONFIGURE),
    ("user_config", "default_output_type"): ("spec.quantization.output", Impact.RECONFIGURE),
    ("user_config", "models"): ("models", Impact.RECONFIGURE),
    ("user_config", "max_message_bytes"): ("spec.grpc.maxMessageBytes", Impact.RECONFIGURE),
    ("user_config",): ("", Impact.RECONFIGURE),
}  # fmt: skip
"""Manifest's field and impact by place in an application and its one deployment, flattened."""

_HOLDERS: Final = frozenset(path[:-1] for path in _FIELDS)
"""Places under which others are told apart."""


def _applications(config: ServeConfig) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in config.get("applications", ())}


def _resource(name: str, application: Mapping[str, Any]) -> str:
    if name == ROUTER:
        fleet = application["deployments"][0]["user_config"]["fleet"]
        return f"Fleet/{fleet.rpartition('/')[2]}"
    arguments = application["args"]
    return f"{arguments['role'].capitalize()}/{arguments['name']}"


def _whole(resource: str, impact: Impact) -> Change:
    return Change(resource, "", None, None, impact, _MEANING[impact])


def _cluster_changes(current: ServeConfig | None, desired: ServeConfig) -> Iterator[Change]:
    if current is None:
        return
    for key in sorted({*current, *desired} - {"applications"}):
        before, after = current.get(key), desired.get(key)
        if before != after:
            impact = Impact.NEW_CLUSTER
            yield Change("Cluster", key, before, after, impact, _MEANING[impact])


def _changes(
    resource: str, before: Mapping[str, Any], after: Mapping[str, Any], *, fixed: bool
) -> list[Change]:
    old, new = dict(_leaves(_flat(before))), dict(_leaves(_flat(after)))
    found: dict[str, Change] = {}
    for path in sorted({*old, *new}):
        if old.get(path) == new.get(path):
            continue
        field, impact = _field(resource, path)
        if fixed and path in _CONTRACT:
            impact = Impact.REFUSED
        reason = _reason(resource, path, impact, before, after)
        change = Change(resource, field, old.get(path), new.get(path), impact, reason)
        # One field may set several values: the gravest of them is what it does.
        if field not in found or impact > found[field].impact:
            found[field] = change
    return list(found.values())


def _flat(application: Mapping[str, Any]) -> dict[str, Any]:
    """Merge an application with its one deployment: no key has both meanings but these."""
    (deployment,) = application["deployments"]
    inner = {key: value for key, value in deployment.items() if key != "name"}
    outer = {k: v for k, v in application.items() if k not in ("name", "deployments")}
    return {**outer, **inner}


def _leaves(value: Mapping[str, Any], under: _Path = ()) -> Iterator[tuple[_Path, object]]:
    for key, item in value.items():
        path = (*under, key)
        whole = path in _FIELDS and path not in _HOLDERS
        if isinstance(item, Mapping) and not whole:
            yield from _leaves(item, path)
        else:
            yield path, item


def _field(resource: str, path: _Path) -> tuple[str, Impact]:
    if path == ("args", "max_tokens"):
        field = "spec.maxTokens" if resource.startswith("Embedder") else "spec.maxPairTokens"
        return field, Impact.RESTART_APP
    if path[:2] == _GOLDEN:
        bound = "minCosine" if resource.startswith("Embedder") else "minRankAgreement"
        part = f".{bound}" if path[-1] == "bound" else ""
        return f"spec.verification{part}", Impact.RECONFIGURE
    if path[:2] == ("user_config", "batching"):
        return f"spec.batching.{to_camel(path[-1])}", Impact.RECONFIGURE
    for end in range(len(path), 0, -1):
        if path[:end] in _FIELDS:
            field, impact = _FIELDS[path[:end]]
            return field or ".".join(path), impact
    return ".".join(path), Impact.RESTART_APP


def _reason(
    resource: str,
    path: _Path,
    impact: Impact,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> str:
    reason = _MEANING[impact]
    deployment = after["deployments"][0]
    if impact in (Impact.ROLL_REPLICAS, Impact.RESTART_APP):
        if deployment.get("max_surge_percent", 0) > 0:
            reason += " Calls go on if there is room for one more replica."
        else:
            reason += " Calls to a lone replica wait: spec.rollout.maxSurgePercent avoids it."
    if path[:2] == _GOLDEN:
        return _COMPARED
    if path[0] == "user_config" and path[-1] in FITTED and to_be_fitted(before, after):
        return _ASKED
    if path == ("user_config", "default_instruction") and resource.startswith("Reranker"):
        return _MAY_BE_TOO_LONG
    if path in _CONTRACT:
        embeds = resource.startswith("Embedder")
        effect = "vectors made before must be made again" if embeds else "scores change"
        return f"The contract changes: {effect}. {reason}"
    if path == ("args", "device") and after["args"]["weights"] == "auto":
        return (
            f"Weights of type auto may load as another type, which changes the contract. {reason}"
        )
    return reason


def _short(value: object) -> str:
    if isinstance(value, list):
        value = ", ".join(
            each["name"] if isinstance(each, Mapping) else str(each) for each in value
        )
    text = "unset" if value is None or value == "" else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
