"""What a status says, by kind: observations with the generation they were made at.

Small and slow on purpose: what changes with every request is a metric. All of it is optional, since
a status is empty until the operator has seen the resource.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from embedfleet.resources.base import Part

__all__ = [
    "CacheStatus",
    "Change",
    "Condition",
    "FleetStatus",
    "ModelStatus",
    "RouteStatus",
]

Text = Annotated[str, Field(max_length=1024)]
Word = Annotated[str, Field(max_length=253)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Generation = Annotated[int, Field(ge=0, le=9_007_199_254_740_991)]
Time = Annotated[datetime, Field(json_schema_extra={"maxLength": 64})]
Unit = Annotated[float, Field(ge=-1, le=1)]


class Truth(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Part):
    """One observation: whether something holds, since when and why."""

    type: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z]*$", max_length=64)]
    """What is observed: Accepted, Cached, Verified, Progressing, Ready, Warm or Degraded."""
    status: Truth
    """Whether it holds."""
    observed_generation: Generation | None = None
    """Generation of the resource that was observed."""
    last_transition_time: Time
    """When `status` last changed."""
    reason: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=128)]
    """Why, in one word of the documented list."""
    message: Annotated[str, Field(max_length=4096)]
    """Why, and what to do next."""


class Status(Part):
    """What every kind reports."""

    observed_generation: Generation | None = None
    """Generation of the resource that all of this was observed at."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16)] | None = None
    """Observations by type, all of them set at first sight."""


class PoolStatus(Part):
    """Nodes of one pool."""

    name: Word
    """Name of the pool."""
    nodes: Count
    """Nodes that are there."""
    wanted_nodes: Count
    """Nodes that load asks for."""


class Change(Part):
    """A change that was applied, by the gravest of its classes."""

    impact: Word
    """Its class: Start, Reconfigure, RollReplicas, RestartApp, Remove or NewCluster."""
    began: Time
    """When it was begun."""
    seconds: Count | None = None
    """How long it took until everything was settled; not set while it goes on."""


class FleetStatus(Status):
    """What is observed of a fleet."""

    endpoint: Text | None = None
    """Address that clients call."""
    served_models: Count | None = None
    """Models that answer."""
    nodes: Count | None = None
    """Nodes that are there, of all pools."""
    pools: Annotated[tuple[PoolStatus, ...], Field(max_length=16)] | None = None
    """Nodes by pool."""
    changing: Change | None = None
    """What is being applied."""
    last_changes: Annotated[tuple[Change, ...], Field(max_length=8)] | None = None
    """The last change of each class, so that a plan can say how long the next one may take."""


class Scale(Part):
    """The last change of the number of replicas."""

    time: Time
    """When."""
    from_replicas: Count
    """Number before."""
    to_replicas: Count
    """Number after."""
    reason: Text
    """Why."""


class Failure(Part):
    """The last failure of a replica."""

    time: Time
    """When it was seen."""
    reason: Word
    """What failed, in one word."""
    message: Annotated[str, Field(max_length=4096)]
    """The replica's own words."""


class Verification(Part):
    """How golden texts came out."""

    time: Time
    """When."""
    contract_hash: Word
    """Contract whose golden outputs were compared with."""
    worst_cosine: Unit | None = None
    """Of embedders: cosine of the text that came out worst."""
    worst_text: Word | None = None
    """Of embedders: how that text begins."""
    rank_agreement: Unit | None = None
    """Of rerankers: rank correlation with the golden order."""
    refused: Word | None = None
    """Fingerprint of the version that was refused: tried again when anything of it changes."""


class ModelStatus(Status):
    """What is observed of an embedder or reranker."""

    contract_hash: Word | None = None
    """Identifies the vector space, or the scores: equal hashes compare."""
    fleet: Word | None = None
    """Fleet that serves the model."""
    endpoint: Text | None = None
    """Address that clients call."""
    served_revision: Word | None = None
    """Commit that answers; empty for local files."""
    replicas: Count | None = None
    """Replicas that run."""
    ready_replicas: Count | None = None
    """Replicas that answer."""
    selector: Text | None = None
    """Label selector of the pods that replicas run in, for autoscalers."""
    last_scale: Scale | None = None
    """The last change of the number of replicas."""
    last_failure: Failure | None = None
    """The last failure of a replica."""
    verification: Verification | None = None
    """How golden texts came out."""


class ResolvedModel(Part):
    """A model that a route leads to."""

    name: Word
    """Name of the Embedder or Reranker."""
    contract_hash: Word | None = None
    """Its contract, once it has one."""
    ready: bool
    """Whether it answers."""


class RouteStatus(Status):
    """What is observed of a route."""

    fleet: Word | None = None
    """Fleet that answers to the name."""
    endpoint: Text | None = None
    """Address that clients call."""
    contract_hash: Word | None = None
    """Contract of all its embedders, if they share one."""
    models: Annotated[tuple[ResolvedModel, ...], Field(max_length=640)] | None = None
    """Models that its rules lead to."""


class CacheStatus(Status):
    """What is observed of a cache."""

    cached_bytes: Annotated[int, Field(ge=0, le=9_007_199_254_740_991)] | None = None
    """Bytes in the volume."""
    wanted_bytes: Annotated[int, Field(ge=0, le=9_007_199_254_740_991)] | None = None
    """Bytes that the source has."""
    revision: Word | None = None
    """Commit that is cached."""
    weights_digest: Word | None = None
    """Digest of the cached weights, if it was checked."""
    tokenizer_digest: Word | None = None
    """Digest of the cached tokenizer, if it was checked."""
    claim_name: Word | None = None
    """PersistentVolumeClaim that holds the files."""
