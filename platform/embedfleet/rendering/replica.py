"""What one model's replicas are told: the same values where they are written and where read.

Arguments are what a replica is built from, and changing one replaces the replicas. Settings can
change under traffic: Serve hands them to running replicas as `user_config`.
"""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict

from embedfleet.catalog import DEFAULT_INSTRUCTION
from embedfleet.golden import Golden
from embedfleet.messages import OutputType, Role
from embedfleet.resources.fleet import FleetSpec
from embedfleet.resources.shared import Batching

__all__ = [
    "MAX_MESSAGE_BYTES",
    "BatchingSettings",
    "GoldenSettings",
    "ReplicaArguments",
    "ReplicaSettings",
    "RoutedModel",
    "RouterSettings",
]


MAX_MESSAGE_BYTES: Final = FleetSpec().grpc.max_message_bytes
"""What a fleet takes that says nothing else."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ReplicaArguments(_Frozen):
    """What a replica is built from.

    Attributes:
        name: The resource's name.
        source: Hub name, local folder, `file://` address, or `embedded/NAME`.
        revision: Commit of a hub source; empty otherwise.
        folder: Where the files lie; empty lets the replica look for `source` itself.
        weights: `auto`, `float32`, `bfloat16` or `float16`.
        backend: `torch`, or `echo` for measuring what surrounds an engine.
        max_tokens: Longest sequence, prompt included; None means the model's own limit.
        device: `auto`, `cpu` or `cuda`.
    """

    name: str
    role: Role
    source: str
    revision: str = ""
    folder: str = ""
    weights: str = "auto"
    backend: str = "torch"
    max_tokens: int | None = None
    device: str = "auto"


BatchingSettings = Batching
"""Limits of a replica's batcher, as the manifest states them; None is resolved from the device."""


class GoldenSettings(_Frozen):
    """What a replica must still give before it takes these settings over.

    Attributes:
        bound: Least cosine of any vector, or least rank agreement.
    """

    golden: Golden
    bound: float


class ReplicaSettings(_Frozen):
    """What can change without a restart.

    Attributes:
        default_dimension: Used when a request names none; None means native.
        allowed_dimensions: If not empty, the only ones a request may name.
        allow_instruction_override: Whether a request may bring its own instruction.
        max_message_bytes: Largest request message that is read, in a call as in a stream.
        golden: None where nothing was recorded yet, or on a laptop.
    """

    aliases: tuple[str, ...] = ()
    default_instruction: str = DEFAULT_INSTRUCTION
    allow_instruction_override: bool = True
    default_dimension: int | None = None
    allowed_dimensions: tuple[int, ...] = ()
    default_output_type: OutputType = OutputType.FLOAT32
    batching: BatchingSettings = BatchingSettings()
    max_message_bytes: int = MAX_MESSAGE_BYTES
    golden: GoldenSettings | None = None


class RoutedModel(_Frozen):
    """A model as the router knows it before any replica answers."""

    name: str
    role: Role
    application: str
    aliases: tuple[str, ...] = ()
    source: str = ""
    revision: str = ""


class RouterSettings(_Frozen):
    """What the router application is told: every model of the fleet.

    Attributes:
        fleet: Its full name, such as `search/guest`: it also marks whose a Ray cluster is.
        max_message_bytes: Largest request message that is read and passed on.
    """

    fleet: str
    models: tuple[RoutedModel, ...] = ()
    max_message_bytes: int = MAX_MESSAGE_BYTES
