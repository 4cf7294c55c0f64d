"""All that is known about a fleet at one moment, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from embedfleet.golden import Golden
from embedfleet.rendering.names import PREFIXES, ROUTER
from embedfleet.rendering.serve_state import ApplicationStatus
from embedfleet.resources import Fleet, ModelCache, ModelRoute
from embedfleet.resources.rules import Model
from embedfleet_operator.conditions.verdicts import Refusal, Verdict
from embedfleet_operator.crds.status import Verification
from embedfleet_operator.observing.judging import Judged
from embedfleet_operator.rendering import Manifest, Target

__all__ = ["Seen", "ServeState"]


@dataclass(frozen=True, slots=True)
class ServeState:
    """What Serve says at one moment.

    Attributes:
        error: Why it did not answer; empty if it did.
        applications: Every application by name.
        deployed: The configuration of each, as it was put.
    """

    error: str = "not asked yet"
    applications: Mapping[str, ApplicationStatus] = field(default_factory=dict)
    deployed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def answers(self) -> bool:
        """Whether it answered."""
        return not self.error

    @property
    def strangers(self) -> tuple[str, ...]:
        """Applications that no fleet has put there."""
        own = tuple(f"{prefix}-" for prefix in PREFIXES.values())
        return tuple(n for n in self.applications if n != ROUTER and not n.startswith(own))

    @property
    def fleet(self) -> str:
        """Whose the router is, such as `search/guest`; empty if it does not say.

        An earlier release, and a laptop, give no namespace.
        """
        router = self.deployed.get(ROUTER)
        return str(router["deployments"][0]["user_config"]["fleet"]) if router else ""


@dataclass(frozen=True, slots=True)
class Seen:
    """All that is known about a fleet at one moment.

    Attributes:
        models: Its models, oldest first.
        caches: Those of its namespace that may be used.
        owned: Live objects that were made for it.
        clusters: RayClusters that KubeRay built for it.
        nodes: Pods of its Ray nodes.
        served: Models as they last served well, by resource.
        goldens: Golden outputs by resource.
        cached: How the cache of a model is, by resource of the model.
        foreseen: Why running replicas would refuse golden outputs that they are yet to be given, by
            resource; empty if they would not, None if nobody can tell.
        misfits: Why models that run must not be given what is to be their default, by resource.
        verified: How golden outputs came out, by resource.
        secrets: Secrets that it names; None for those that are missing.
        kuberay: The installed definition of RayService; None where there is none.
    """

    fleet: Judged[Fleet]
    now: datetime
    target: Target
    models: tuple[Judged[Model], ...] = ()
    routes: tuple[Judged[ModelRoute], ...] = ()
    caches: tuple[ModelCache, ...] = ()
    owned: tuple[Manifest, ...] = ()
    clusters: tuple[Manifest, ...] = ()
    nodes: tuple[Manifest, ...] = ()
    serve: ServeState = field(default_factory=ServeState)
    served: Mapping[str, Model] = field(default_factory=dict)
    goldens: Mapping[str, Golden] = field(default_factory=dict)
    cached: Mapping[str, Verdict] = field(default_factory=dict)
    foreseen: Mapping[str, str | None] = field(default_factory=dict)
    misfits: Mapping[str, Refusal] = field(default_factory=dict)
    verified: Mapping[str, tuple[Verdict, Verification | None]] = field(default_factory=dict)
    secrets: Mapping[str, Manifest | None] = field(default_factory=dict)
    kuberay: Manifest | None = None
