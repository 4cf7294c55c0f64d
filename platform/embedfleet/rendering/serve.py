"""Resources into the configuration that Serve's REST API takes: one application a model.

Pure and deterministic: equal resources give equal bytes, so that nothing restarts without a cause.
What a change restarts is decided by where a value stands: `args` replace the replicas,
`user_config` does not, and a policy that appears later would restart the whole application, so one
is always written out (ray 2.60, serve/_private/deploy_utils.py:get_app_code_version).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import yaml

from embedfleet.golden import Golden
from embedfleet.rendering.names import ROUTER, Model, aliases, application, full_name, role
from embedfleet.rendering.replica import (
    GoldenSettings,
    ReplicaArguments,
    ReplicaSettings,
    RoutedModel,
    RouterSettings,
)
from embedfleet.resources.embedder import EmbedderSpec
from embedfleet.resources.fleet import Fleet
from embedfleet.resources.reranker import Reranker

__all__ = [
    "GRPC_SERVICER_FUNCTIONS",
    "POOL_LABEL",
    "ServeConfig",
    "ServePorts",
    "render_serve",
    "to_yaml",
]

ServeConfig = dict[str, Any]

POOL_LABEL: Final = "embedfleet.io/pool"

GRPC_SERVICER_FUNCTIONS: Final = tuple(
    f"embedfleet.serving.services:{name}"
    for name in (
        "add_embedding",
        "add_reranking",
        "add_model",
        "add_retrieval",
        "add_tei_info",
        "add_tei_embed",
        "add_tei_predict",
        "add_tei_rerank",
        "add_tei_tokenize",
        "add_kserve",
        "add_health",
    )
)
"""Every service there will ever be in this release: a running cluster cannot learn another."""

_NO_GOLDENS: Final[Mapping[str, Golden]] = {}

_BUILD_MODEL: Final = "embedfleet.serving.app:build_model"
_BUILD_ROUTER: Final = "embedfleet.serving.app:build_router"
_POLICY: Final = "ray.serve.autoscaling_policy:default_autoscaling_policy"

# The replica's own batcher is the queue: it knows tokens and deadlines, and refuses with a hint. So
# Serve's bound lies above the batcher's, and only stops what would drown the event loop.
_MAX_ONGOING_REQUESTS: Final = 32_768
_MAX_QUEUED_REQUESTS: Final = 1024
# Serve gives up a replica after three of these: that has to fit a call that waits for its answer,
# 60 s unless its caller says otherwise, with time to be made again.
_HEALTH_CHECK_TIMEOUT_SECONDS: Final = 10

# Without the access log Serve still builds a line for every request unless warnings are its level.
_LOGGING: Final = {"enable_access_log": False, "log_level": "WARNING"}


@dataclass(frozen=True, slots=True)
class ServePorts:
    """Where Serve's own proxies listen, behind the fleet's edge.

    Attributes:
        host: Interface; `127.0.0.1` where the edge runs on the same machine.
    """

    grpc: int = 9000
    http: int = 8000
    host: str = "0.0.0.0"


def render_serve(
    fleet: Fleet,
    models: Sequence[Model],
    ports: ServePorts | None = None,
    goldens: Mapping[str, Golden] = _NO_GOLDENS,
) -> ServeConfig:
    """Render a fleet as the body of `PUT /api/serve/applications/`.

    Args:
        fleet: Pools and limits.
        models: In any order.
        ports: Where Serve's proxies listen; Serve's own ports and every interface if left out.
        goldens: By application, what its replicas must still give; those left out give anything.
    """
    ports = ports or ServePorts()
    models = sorted(models, key=application)
    names = aliases(models)
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": ports.host, "port": ports.http},
        "grpc_options": {
            "port": ports.grpc,
            "grpc_servicer_functions": list(GRPC_SERVICER_FUNCTIONS),
        },
        "logging_config": dict(_LOGGING),
        "applications": [
            *(
                _model_application(
                    fleet, model, _settings(fleet, model, names[application(model)], goldens)
                )
                for model in models
            ),
            _router_application(fleet, models, names),
        ],
    }


def to_yaml(config: ServeConfig) -> str:
    """Write a configuration as YAML with sorted keys: equal values, equal bytes."""
    return _yaml(json.dumps(config, sort_keys=True))


@lru_cache(maxsize=64)
def _yaml(config: str) -> str:
    """Write what is asked for again and again, and takes half a second for fifty models."""
    return yaml.safe_dump(json.loads(config), sort_keys=True, allow_unicode=True, width=100)


def _model_application(fleet: Fleet, model: Model, settings: ReplicaSettings) -> dict[str, Any]:
    rollout = model.spec.rollout
    scaling = model.spec.scaling
    resources = _resources(fleet, model)
    return {
        "name": application(model),
        "route_prefix": f"/{application(model)}",
        "import_path": _BUILD_MODEL,
        "args": _arguments(model, has_gpu=resources["num_gpus"] > 0).model_dump(mode="json"),
        "deployments": [
            {
                "name": str(role(model)),
                "user_config": settings.model_dump(mode="json"),
                "autoscaling_config": {
                    "min_replicas": scaling.min_replicas,
                    "max_replicas": scaling.resolved_max_replicas,
                    "target_ongoing_requests": scaling.target_ongoing_requests,
                    "upscale_delay_s": scaling.upscale_delay_seconds,
                    "downscale_delay_s": scaling.downscale_delay_seconds,
                    "policy": {"policy_function": _POLICY},
                },
                "max_ongoing_requests": _MAX_ONGOING_REQUESTS,
                "max_queued_requests": _MAX_QUEUED_REQUESTS,
                "max_surge_percent": rollout.max_surge_percent,
                "graceful_shutdown_timeout_s": rollout.graceful_shutdown_seconds,
                "health_check_period_s": rollout.health_check_period_seconds,
                "health_check_timeout_s": _HEALTH_CHECK_TIMEOUT_SECONDS,
                "logging_config": dict(_LOGGING),
                "ray_actor_options": resources,
            }
        ],
    }


def _arguments(model: Model, *, has_gpu: bool) -> ReplicaArguments:
    spec = model.spec
    longest = spec.max_tokens if isinstance(spec, EmbedderSpec) else spec.max_pair_tokens
    return ReplicaArguments(
        name=model.name,
        role=role(model),
        source=spec.source,
        revision=spec.revision,
        folder=spec.folder,
        weights=str(spec.quantization.weights),
        backend=str(spec.backend),
        max_tokens=longest,
        device="cuda" if has_gpu else "cpu",
    )


def _settings(
    fleet: Fleet, model: Model, names: tuple[str, ...], goldens: Mapping[str, Golden]
) -> ReplicaSettings:
    spec = model.spec
    golden = goldens.get(application(model))
    settings = ReplicaSettings(
        aliases=names,
        default_instruction=spec.instruction.default,
        allow_instruction_override=spec.instruction.allow_override,
        batching=spec.batching,
        max_message_bytes=fleet.spec.grpc.max_message_bytes,
        golden=GoldenSettings(golden=golden, bound=spec.verification.bound) if golden else None,
    )
    if isinstance(model, Reranker):
        return settings
    return settings.model_copy(
        update={
            "default_dimension": model.spec.dimension,
            "allowed_dimensions": model.spec.allowed_dimensions,
            "default_output_type": model.spec.quantization.output,
        }
    )


def _resources(fleet: Fleet, model: Model) -> dict[str, Any]:
    """Give what one replica takes, and where: its first pool, or else the others in order."""
    placement = model.spec.placement
    by_name = {pool.name: pool for pool in fleet.spec.pools}
    named = placement.pools or tuple(by_name)[:1]
    options: dict[str, Any] = {
        "num_cpus": placement.cpus,
        "num_gpus": placement.gpu_fraction or 0.0,
    }
    if not named:
        return options
    if by_name[named[0]].has_gpus and placement.gpu_fraction is None:
        options["num_gpus"] = 1.0
    chain = dict.fromkeys([*named, *(each for name in named for each in fleet.spec.chain(name))])
    first, *others = chain
    options["label_selector"] = {POOL_LABEL: first}
    if others:
        options["fallback_strategy"] = [{"label_selector": {POOL_LABEL: each}} for each in others]
    return options


def _router_application(
    fleet: Fleet, models: Sequence[Model], names: dict[str, tuple[str, ...]]
) -> dict[str, Any]:
    settings = RouterSettings(
        fleet=full_name(fleet),
        max_message_bytes=fleet.spec.grpc.max_message_bytes,
        models=tuple(
            RoutedModel(
                name=model.name,
                role=role(model),
                application=application(model),
                aliases=names[application(model)],
                source=model.spec.source,
                revision=model.spec.revision,
            )
            for model in models
        ),
    )
    return {
        "name": ROUTER,
        "route_prefix": "/",
        "import_path": _BUILD_ROUTER,
        "args": {},
        "deployments": [
            {
                "name": ROUTER,
                "user_config": settings.model_dump(mode="json"),
                "autoscaling_config": {
                    "min_replicas": 1,
                    "max_replicas": 1,
                    "policy": {"policy_function": _POLICY},
                },
                "max_ongoing_requests": _MAX_ONGOING_REQUESTS,
                "max_queued_requests": _MAX_QUEUED_REQUESTS,
                "health_check_timeout_s": _HEALTH_CHECK_TIMEOUT_SECONDS,
                "logging_config": dict(_LOGGING),
                # It waits for replicas: on a small machine every core belongs to an engine.
                "ray_actor_options": {"num_cpus": 0},
            }
        ],
    }
