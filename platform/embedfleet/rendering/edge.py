"""Resources into the proxy in front of Serve: the fleet's one listener, as HAProxy 2.8 text.

The edge reads a request's first message just far enough to find the model's name (field 1 of every
request of `embedfleet.v1`) and the message's length, and tells Serve's proxy which application is
meant. Names that clients send never reach a header: only values of the map do. What it cannot read
(a compressed message, a service without a model, an unknown name) goes to the router, which reads
all of it. Refusals have the shape of gRPC, as trailers without a message.

All files are named relative to the configuration's folder and all sockets relative to the working
folder, so that equal resources give equal bytes wherever they run.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from string import Template
from typing import Final

from embedfleet.rendering.names import ROUTER, Model, aliases, application
from embedfleet.resources.fleet import Fleet, Tls

__all__ = [
    "ADMIN_SOCKET",
    "CERTIFICATE_FILE",
    "CLIENT_CA_FILE",
    "CONFIG_FILE",
    "MAP_FILE",
    "METRICS_SOCKET",
    "PRIVATE_KEY_FILE",
    "EdgeConfig",
    "EdgePorts",
    "render_edge",
]

CONFIG_FILE: Final = "haproxy.cfg"
MAP_FILE: Final = "apps.map"
CERTIFICATE_FILE: Final = "edge.crt"
PRIVATE_KEY_FILE: Final = "edge.key"
CLIENT_CA_FILE: Final = "client-ca.crt"
ADMIN_SOCKET: Final = "admin.sock"
METRICS_SOCKET: Final = "metrics.sock"

_STARTING: Final = "the fleet is starting or down: try again"
_CROWDED: Final = "too many calls wait for a replica of this model: try again"
_RETRY_SECONDS: Final = 2
_RESOURCE_EXHAUSTED: Final = 8
_UNAVAILABLE: Final = 14

# Answers with an address for each node are larger than plain DNS allows.
_RESOLVERS: Final = """\
resolvers dns
    parse-resolv-conf
    accepted_payload_size 8192
    hold valid 1s

"""
_METRICS_PORT: Final = """\
    bind :{}
    http-request return status 200 content-type text/plain string "ok" if {{ path /healthz }}
"""


@dataclass(frozen=True, slots=True)
class EdgePorts:
    """Where the edge listens and what is behind it.

    Attributes:
        listen: Port that clients call; None means the fleet's own `grpc.port`.
        listen_host: Interface; empty means all of them, IPv6 included where there is any.
        serve_host: Where Serve's proxy is.
        serve_grpc: Its gRPC port.
        num_threads: Threads of the edge. Two carry more than one machine's engines answer.
        serve_slots: 0 where `serve_host` is one address, known at start. Above 0 it is a full
            name, looked up in DNS all the time, that stands for up to so many proxies or none yet.
        metrics: Port of `/metrics` and `/healthz` for other machines; None for the socket alone.
    """

    serve_grpc: int
    serve_host: str = "127.0.0.1"
    listen: int | None = None
    listen_host: str = ""
    num_threads: int = 2
    serve_slots: int = 0
    metrics: int | None = None


@dataclass(frozen=True, slots=True)
class EdgeConfig:
    """Texts of the edge's files.

    Attributes:
        haproxy_cfg: For `CONFIG_FILE`.
        apps_map: For `MAP_FILE`: a model's name or alias and its application, one pair a line.
    """

    haproxy_cfg: str
    apps_map: str


def render_edge(fleet: Fleet, models: Sequence[Model], ports: EdgePorts) -> EdgeConfig:
    """Render the edge of a fleet.

    HAProxy is started with `-f` and the path of `CONFIG_FILE`; `MAP_FILE`, and with TLS
    `CERTIFICATE_FILE`, `PRIVATE_KEY_FILE` and `CLIENT_CA_FILE`, lie beside it. The sockets
    `ADMIN_SOCKET` and `METRICS_SOCKET` appear in the folder that it is started in.
    """
    names = aliases(models)
    pairs = {
        name: application(model)
        for model in models
        for name in (model.name, *names[application(model)])
    }
    spec = fleet.spec
    listen = f"{ports.listen_host}:{ports.listen or spec.grpc.port}"
    return EdgeConfig(
        haproxy_cfg=Template(_template()).substitute(
            num_threads=ports.num_threads,
            bind=f"{listen} {_transport(spec.tls)}",
            server=_server(ports),
            resolvers=_RESOLVERS if ports.serve_slots else "",
            metrics_port=_METRICS_PORT.format(ports.metrics) if ports.metrics else "",
            max_message_bytes=spec.grpc.max_message_bytes,
            map_file=MAP_FILE,
            starting=_STARTING,
            starting_details=_retry_details(_UNAVAILABLE, _STARTING, _RETRY_SECONDS),
            crowded=_CROWDED,
            crowded_details=_retry_details(_RESOURCE_EXHAUSTED, _CROWDED, _RETRY_SECONDS),
            router=ROUTER,
            admin_socket=ADMIN_SOCKET,
            metrics_socket=METRICS_SOCKET,
        ),
        apps_map="".join(f"{name} {app}\n" for name, app in sorted(pairs.items())),
    )


def _retry_details(code: int, message: str, seconds: int) -> str:
    """Write the header that tells clients when to come back, so that they do until their deadline.

    A google.rpc.Status with a RetryInfo, as `grpc-status-details-bin` carries it: base64 without
    padding. All parts are shorter than 128 bytes.
    """

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    retry = field(1, bytes([1 << 3, seconds]))
    hint = field(1, b"type.googleapis.com/google.rpc.RetryInfo") + field(2, retry)
    status = bytes([1 << 3, code]) + field(2, message.encode()) + field(3, hint)
    return base64.b64encode(status).decode().rstrip("=")


def _server(ports: EdgePorts) -> str:
    address = f"{ports.serve_host}:{ports.serve_grpc}"
    if not ports.serve_slots:
        return f"server serve {address}"
    # It starts before the name exists, and answers UNAVAILABLE until it does.
    found = "resolvers dns resolve-prefer ipv4 init-addr none"
    return f"server-template serve {ports.serve_slots} {address} {found}"


def _transport(tls: Tls | None) -> str:
    if tls is None:
        return "proto h2"
    verify = f" ca-file {CLIENT_CA_FILE} verify required" if tls.verifies_clients else ""
    return f"ssl crt {CERTIFICATE_FILE} alpn h2 ssl-min-ver TLSv1.2{verify}"


@cache
def _template() -> str:
    return resources.files("embedfleet.rendering").joinpath("edge.cfg").read_text()
