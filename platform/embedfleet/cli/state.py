"""Finds the fleet that a command means: the one named, the one configured, or the one running."""

from __future__ import annotations

from embedfleet.config import Settings
from embedfleet.errors import InvalidRequest, Unavailable
from embedfleet.local.state import list_states, load_state

__all__ = ["default_endpoint"]


def default_endpoint(settings: Settings, fleet: str = "") -> str:
    """Give the `host:port` of the fleet to call.

    Args:
        settings: Its endpoint wins unless a fleet is named.
        fleet: Name of a fleet started on this machine; empty means the only one.

    Raises:
        Unavailable: No fleet runs here, or not that one.
        InvalidRequest: Several run, and none was named.
    """
    if fleet:
        state = load_state(settings.home, fleet)
        if state is None:
            raise Unavailable(
                f"fleet {fleet!r} does not run on this machine; running: {_names(settings)}. "
                "Start it with `embedfleet up`."
            )
        return state.endpoint
    if settings.endpoint:
        return settings.endpoint
    states = list_states(settings.home)
    if not states:
        raise Unavailable(
            "No fleet runs on this machine. Start one with `embedfleet up`, or name one elsewhere "
            "with --endpoint HOST:PORT."
        )
    if len(states) > 1:
        raise InvalidRequest(
            f"Several fleets run on this machine: {_names(settings)}. Choose with --fleet NAME.",
            field="fleet",
        )
    return states[0].endpoint


def _names(settings: Settings) -> str:
    return ", ".join(state.name for state in list_states(settings.home)) or "none"
