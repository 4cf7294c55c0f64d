"""What reconciling must know of a Kubernetes cluster besides what is watched."""

from __future__ import annotations

from dataclasses import dataclass

from embedfleet_operator.rendering import Manifest, Target

__all__ = ["Environment"]


@dataclass
class Environment:
    """Kept up to date by the process, read by whoever reconciles.

    Attributes:
        target: The cluster as rendering sees it.
        kuberay: The installed definition of RayService; None where there is none.
    """

    target: Target
    kuberay: Manifest | None = None
