"""Two ways to run a fleet's applications behind one interface.

KubeRay is told by the RayService, one of the fleet's manifests, and puts its configuration to Serve
itself; whatever else is put there it overwrites. A cluster that ran before is told directly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from embedfleet.errors import EmbedfleetError, Unavailable
from embedfleet.rendering.names import ROUTER
from embedfleet.rendering.serve import ServeConfig
from embedfleet.rendering.serve_state import summarize
from embedfleet.resources import Fleet
from embedfleet.serve_rest import ServeRest
from embedfleet_operator.deciding.differences import covers
from embedfleet_operator.deciding.owning import others
from embedfleet_operator.observing.seen import ServeState

__all__ = ["KubeRayCluster", "RestCluster", "ServeCluster", "cleared", "read_state", "runs"]

_PUT_SECONDS: Final = 20.0


class ServeCluster(Protocol):
    """A Ray cluster as the operator uses it."""

    async def observe(self) -> ServeState:
        """Ask Serve; an answer that does not come is a state, too."""

    async def deploy(self, config: ServeConfig, state: ServeState) -> bool:
        """Make Serve run a configuration; tells whether anything had to be said.

        Raises:
            EmbedfleetError: Serve refuses it or does not answer.
        """

    async def clear(self) -> None:
        """Take every application away.

        Raises:
            EmbedfleetError: Serve does not answer.
        """


@dataclass(frozen=True, slots=True)
class KubeRayCluster:
    """A cluster that KubeRay built: its dashboard is only read."""

    dashboard: str
    token: str = ""

    async def observe(self) -> ServeState:
        """Ask Serve."""
        return await asyncio.to_thread(_observe, self.dashboard, self.token)

    async def deploy(self, config: ServeConfig, state: ServeState) -> bool:
        """Leave it to KubeRay, which reads the RayService."""
        return False

    async def clear(self) -> None:
        """Leave it to the garbage collector, which deletes the RayService."""


@dataclass(frozen=True, slots=True)
class RestCluster:
    """A cluster that ran before: this operator alone puts its configuration."""

    dashboard: str
    token: str = ""

    async def observe(self) -> ServeState:
        """Ask Serve."""
        return await asyncio.to_thread(_observe, self.dashboard, self.token)

    async def deploy(self, config: ServeConfig, state: ServeState) -> bool:
        """Put the configuration unless Serve has it."""
        if runs(state, config):
            return False
        await asyncio.to_thread(_put, self.dashboard, self.token, config)
        return True

    async def clear(self) -> None:
        """Take every application away."""
        await asyncio.to_thread(_delete, self.dashboard, self.token)


async def cleared(cluster: ServeCluster, fleet: Fleet, *, is_refused: bool) -> str:
    """Take a fleet's applications away, and tell what was left alone; empty for nothing.

    Raises:
        EmbedfleetError: Serve does not answer.
    """
    state = await cluster.observe()
    if not state.answers:
        raise Unavailable(state.error)
    if found := others(state, fleet, was_here=not is_refused):
        return f"Nothing is taken away from the Ray cluster: it runs {found}."
    if state.applications:
        await cluster.clear()
    return ""


def runs(state: ServeState, config: ServeConfig) -> bool:
    """Whether Serve was given a configuration already, and nothing else."""
    wanted = {each["name"]: each for each in config["applications"]}
    return wanted.keys() == state.deployed.keys() and covers(state.deployed, wanted)


def read_state(details: Mapping[str, Any]) -> ServeState:
    """Read Serve's answer (`ServeInstanceDetails`).

    Raises:
        AttributeError, KeyError, TypeError, ValueError: It is none.
    """
    found = details["applications"]
    return ServeState(
        "",
        {name: summarize(name, each) for name, each in found.items()},
        {name: each["deployed_app_config"] for name, each in found.items() if _whole(name, each)},
    )


def _observe(dashboard: str, token: str) -> ServeState:
    try:
        with ServeRest(dashboard, token) as serve:
            return read_state(serve.get())
    except EmbedfleetError as error:
        return ServeState(error.message)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return ServeState(
            f"Ray's dashboard at {dashboard} gives no state of Serve ({type(error).__name__}: "
            f"{error}). Check that the address is Ray's and its version is 2.60."
        )


def _whole(name: str, application: Mapping[str, Any]) -> bool:
    """Whether Serve tells the configuration of an application as this operator makes them."""
    match application.get("deployed_app_config"):
        case {"name": str(told), "args": {"role": str(), "name": str()}, "deployments": [{**one}]}:
            return told == name != ROUTER and _has_options(one)
        case {"name": str(told), "args": {}, "deployments": [{"user_config": {"fleet": str()}}]}:
            return told == name == ROUTER
    return False


def _has_options(deployment: Mapping[Any, Any]) -> bool:
    match deployment:
        case {"user_config": {}, "ray_actor_options": {"num_gpus": int() | float()}}:
            return True
    return False


def _put(dashboard: str, token: str, config: ServeConfig) -> None:
    with ServeRest(dashboard, token) as serve:
        serve.put(config, _PUT_SECONDS)


def _delete(dashboard: str, token: str) -> None:
    with ServeRest(dashboard, token) as serve:
        serve.delete()
