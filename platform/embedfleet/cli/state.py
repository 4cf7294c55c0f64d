"""Finds the fleet that a command means: the one named, the one configured, or the one running."""

from __future__ import annotations

from embedfleet.config import Settings
from embedfleet.errors import InvalidRequest, Unavailable
from embedfleet.local.state import FleetState, list_states

__all__ = ["choose_fleet", "default_endpoint"]


def choose_fleet(settings: Settings, name: str = "") -> FleetState:
    """Find a fleet that was started on this machine; an empty name means the only one.

    Raises:
        Unavailable: No fleet runs here, or not that one.
        InvalidRequest: Several run, and none was named.
    """
    states = list_states(settings.home)
    running = ", ".join(state.name for state in states)
    if not states:
        raise Unavailable("No fleet runs on this machine. Start one with `embedfleet up -f PATH`.")
    if name:
        states = [state for state in states if state.name == name]
    if not states:
        raise Unavailable(
            f"Fleet {name!r} does not run on this machine; running: {running}. Start it with "
            "`embedfleet up -f PATH`."
        )
    if len(states) > 1:
        raise InvalidRequest(
            f"Several fleets run on this machine: {running}. Choose with --fleet NAME.",
            field="fleet",
        )
    return states[0]


def default_endpoint(settings: Settings, fleet: str = "") -> str:
    """Give the `host:port` of the fleet to call: the one named, else the one configured.

    Raises:
        Unavailable: It would be one of this machine, and is not here.
        InvalidRequest: Several run, and none was named.
    """
    if settings.endpoint and not fleet:
        return settings.endpoint
    try:
        return choose_fleet(settings, fleet).endpoint
    except Unavailable as missing:
        raise Unavailable(
            f"{missing.message} Call one elsewhere with --endpoint HOST:PORT."
        ) from None
