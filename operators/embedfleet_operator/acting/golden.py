"""Golden outputs in the cluster: recorded from a served model, kept in a ConfigMap, read again.

Recording is the only part that calls anybody, and only the fleet itself. Who owns a ConfigMap and
when one is recorded is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any, Final

import grpc

from embedfleet.client.direct import ask, describe
from embedfleet.client.golden import golden_of, golden_works
from embedfleet.errors import InvalidManifest, WrongRole
from embedfleet.golden import GOLDEN_KEY, Golden
from embedfleet.messages import Role
from embedfleet.rendering.names import Model, application
from embedfleet.resources.fleet import Fleet
from embedfleet_operator.rendering.manifests import Manifest, manifest

__all__ = ["golden_config_map", "golden_name", "read_golden", "record"]

_COMPONENT: Final = "golden"


def golden_name(model: Model) -> str:
    """Name the ConfigMap of what was recorded, such as `docs-emb-golden`."""
    prefix, _, name = application(model).partition("-")
    return f"{name}-{prefix}-golden"


def golden_config_map(fleet: Fleet, model: Model, golden: Golden) -> Manifest:
    """Build the ConfigMap that keeps a model's golden outputs."""
    found = manifest("v1/ConfigMap", fleet, _COMPONENT, golden_name(model), {})
    del found["spec"]
    return {**found, "data": {GOLDEN_KEY: golden.to_json()}}


def read_golden(config_map: Mapping[str, Any] | None, model: Model) -> Golden:
    """Read a ConfigMap that a model rests on, recorded or named in its spec.

    Raises:
        InvalidManifest: It is missing, not golden outputs, or another role's.
    """
    named = model.spec.verification.golden_config_map_name
    name = named or golden_name(model)
    where = f"ConfigMap {name}" + (" of spec.verification.goldenConfigMapName" if named else "")
    if config_map is None:
        raise InvalidManifest(
            f"{where} is missing. Create it with `embedfleet golden`, or leave the field out.",
            field="spec.verification.goldenConfigMapName",
        )
    text = (config_map.get("data") or {}).get(GOLDEN_KEY)
    if not isinstance(text, str):
        raise InvalidManifest(
            f"{where} has no key {GOLDEN_KEY}. Create it with `embedfleet golden`.",
            field="spec.verification.goldenConfigMapName",
        )
    golden = Golden.from_json(text, f"{GOLDEN_KEY} in {where}")
    if golden.role is not model.spec.role:
        raise InvalidManifest(
            f"{where} holds outputs of {golden.role}s; {model.kind}/{model.name} is served as "
            f"{model.spec.role}. Record them from a model of that role.",
            field="spec.verification.goldenConfigMapName",
        )
    return golden


async def record(
    channel: grpc.aio.Channel, application: str, name: str, role: Role, timeout_seconds: float
) -> Golden:
    """Record what a served model gives.

    Args:
        channel: To Serve's proxies, or to the fleet's edge.
        application: Such as `emb-docs`.
        name: The model's name.
        role: What it is served as.
        timeout_seconds: For all requests together.

    Raises:
        ContractMismatch: Replicas of several contracts answer, as during a change.
        EmbedfleetError: The model does not answer as it should.
    """
    until = monotonic() + timeout_seconds

    def left() -> float:
        return max(0.0, until - monotonic())

    info = await describe(channel, application, name, left())
    if info.role is not role:
        raise WrongRole(f"{name} is served as {info.role}, not as {role}.", field="model")
    answers = [
        work.decode(await ask(channel, application, work.method, work.encode(batch), left()), batch)
        for work, batch in golden_works(info)
    ]
    return golden_of(info, answers)
