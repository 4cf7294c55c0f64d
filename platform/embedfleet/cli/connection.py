"""Options by which every calling command finds its fleet, and the client that they open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from embedfleet.cli.options import fleet_option
from embedfleet.cli.state import default_endpoint
from embedfleet.client import Client, ClientConfig, Tls
from embedfleet.config import Settings
from embedfleet.errors import InvalidRequest
from embedfleet.messages import Role

__all__ = ["Connection", "connection_options", "model_of_role"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True, slots=True)
class Connection:
    """Which fleet to call and how."""

    endpoint: str
    fleet: str
    tls: Tls | None
    timeout: float | None

    def open(self) -> Client:
        """Open a client of the fleet meant."""
        settings = Settings.load()
        endpoint = self.endpoint or default_endpoint(settings, self.fleet)
        config = (
            ClientConfig()
            if self.timeout is None
            else ClientConfig(timeout_seconds=self.timeout, stream_timeout_seconds=self.timeout)
        )
        return Client(endpoint, tls=self.tls, token=settings.token, config=config)


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options and pass them to the command as one value, `connection`."""

    @click.option("--endpoint", default="", metavar="HOST:PORT", help="Fleet to call.")
    @fleet_option
    @click.option("--tls", is_flag=True, help="Encrypt the connection.")
    @click.option("--tls-ca", type=_FILE, help="Authorities to trust (PEM); implies --tls.")
    @click.option("--tls-cert", type=_FILE, help="The client's own certificate (PEM).")
    @click.option("--tls-key", type=_FILE, help="Its private key (PEM).")
    @click.option(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="Bound for the whole call; for `embed`, of each request.",
    )
    @wraps(command)
    def wrapped(endpoint: str, fleet: str, timeout: float | None, tls: bool, **rest: Any) -> Any:
        ca, certificate, key = (rest.pop(f"tls_{name}") for name in ("ca", "cert", "key"))
        if endpoint and fleet:
            raise click.UsageError("Give --endpoint or --fleet, not both.")
        encrypted = tls or any((ca, certificate, key))
        files = Tls(ca, certificate, key) if encrypted else None
        return command(connection=Connection(endpoint, fleet, files, timeout), **rest)

    return wrapped


def model_of_role(client: Client, name: str, role: Role) -> str:
    """Give the model named, or the fleet's only one of a role."""
    if name:
        return name
    names = [model.name for model in client.models() if model.role is role]
    if len(names) == 1:
        return names[0]
    found = f"several {role}s: {', '.join(names)}" if names else f"no {role}"
    raise InvalidRequest(f"The fleet has {found}. Name a model with --model NAME.", field="model")
