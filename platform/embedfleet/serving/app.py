"""Where Serve's configuration meets the code: import paths that build applications.

Imports are local: whoever builds the router must not load a tensor library.
"""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve import Application

from embedfleet.messages import Role
from embedfleet.rendering.names import ROUTER
from embedfleet.rendering.replica import ReplicaArguments

__all__ = ["build_model", "build_router"]


def build_model(args: dict[str, Any]) -> Application:
    """Bind one model's ingress deployment; everything else about it is in Serve's configuration."""
    from embedfleet.serving.replicas import EmbedderReplica, RerankerReplica

    arguments = ReplicaArguments.model_validate(args)
    kind = EmbedderReplica if arguments.role is Role.EMBEDDER else RerankerReplica
    return serve.deployment(kind, name=arguments.role.value).bind(args)


def build_router(args: dict[str, Any]) -> Application:
    """Bind the router; its models arrive as user_config."""
    from embedfleet.serving.router import Router

    return serve.deployment(Router, name=ROUTER).bind()
