"""What a served model says of itself."""

from __future__ import annotations

from dataclasses import dataclass

from embedfleet.engine.base import EngineInfo
from embedfleet.rendering.replica import ReplicaArguments, ReplicaSettings
from embedfleet.resources.contract import Contract

__all__ = ["ModelDescription"]


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """Everything that ModelService tells about one model."""

    arguments: ReplicaArguments
    settings: ReplicaSettings
    engine: EngineInfo
    contract: Contract
    contract_hash: str
    max_tokens: int
