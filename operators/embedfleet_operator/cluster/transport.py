"""Carries requests with the official client: its credentials, its certificates, its connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Final

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from embedfleet.errors import Unavailable
from embedfleet_operator.cluster.api import WATCH_SECONDS, Answer, Request, Send

__all__ = ["credentials", "transport"]

_READ_SECONDS: Final = 30.0
_WRITE_SECONDS: Final = 5.0
"""No longer than a lease outlives its holder's own trust in it: then no write comes late."""
_UNLIMITED: Final = 0
_SILENCE_SECONDS: Final = WATCH_SECONDS + 30.0
"""A watch ends by itself before: a connection that is silent for longer is dead."""


async def credentials(kubeconfig: str = "") -> Configuration:
    """Read a kubeconfig, or what a pod is given.

    Raises:
        Unavailable: There is neither.
    """
    # Watches hold theirs for minutes: with a limit, many namespaces would leave none for writes.
    found = Configuration(connection_pool_maxsize=_UNLIMITED)
    try:
        if kubeconfig:
            await config.load_kube_config(config_file=kubeconfig, client_configuration=found)
        else:
            config.load_incluster_config(client_configuration=found)
    except (config.ConfigException, OSError) as error:
        raise Unavailable(
            f"No way to the API server: {error}. Run inside a pod with a service account, or give "
            "--kubeconfig FILE."
        ) from error
    return found


def transport(client: ApiClient) -> Send:
    """Carry requests over one client's connections; what breaks them is an `OSError`."""

    async def send(request: Request) -> Answer:
        headers = {"Accept": "application/json", "Content-Type": request.content_type}
        method, url, headers, _, _ = await client.param_serialize(
            request.method,
            request.path,
            query_params=list(request.query.items()),
            header_params=headers,
            auth_settings=["BearerToken"],
        )
        total = _READ_SECONDS if request.method == "GET" else _WRITE_SECONDS
        timeout = aiohttp.ClientTimeout(
            total=None if request.streams else total, sock_read=_SILENCE_SECONDS
        )
        with _translated():
            response: Any = await client.rest_client.request(
                method, url, headers=headers, body=request.body, _request_timeout=timeout
            )
            if request.streams and response.status == 200:
                return Answer(response.status, lines=_lines(response.response))
            return Answer(response.status, await response.read())

    return send


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except aiohttp.ClientError as error:
        raise ConnectionError(str(error) or type(error).__name__) from error


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Split a stream into lines of any length."""
    rest = b""
    try:
        with _translated():
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield line
    finally:
        connection = response.connection
        if connection is not None and connection.transport is not None:
            # A stream ends in the middle: closed in good order, its socket would stay open until
            # the server has said goodbye too.
            connection.transport.abort()
        response.close()
