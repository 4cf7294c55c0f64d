"""The operator's program.

Usage: python -m embedfleet_operator [--kubeconfig FILE] ...
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from contextlib import suppress
from typing import Any

import click
from kubernetes.aio.client import ApiClient

from embedfleet.errors import EmbedfleetError
from embedfleet_operator.cluster.transport import credentials, transport
from embedfleet_operator.health import serve_health
from embedfleet_operator.process import Connections, Operator
from embedfleet_operator.rendering import Gateway
from embedfleet_operator.settings import IMAGE, Settings, own_identity, own_namespace


@click.command(help="Reconcile fleets and models with Ray clusters until told to stop.")
@click.option("--namespaces", default="", help="Those to look after, with commas; empty for all.")
@click.option("--lease-namespace", default="", help="Where the lease is. Default: the pod's own.")
@click.option("--lease-name", default="embedfleet-operator", show_default=True)
@click.option("--identity", default="", help="This process. Default: the pod's name.")
@click.option("--image", default=IMAGE, show_default=True, help="Of fleets that name none.")
@click.option("--cluster-domain", default="cluster.local", show_default=True)
@click.option("--gateway", default="", help="NAMESPACE/NAME of the Gateway that gRPC enters by.")
@click.option("--gateway-domain", default="", help="Fleets get FLEET.NAMESPACE.DOMAIN.")
@click.option("--monitoring-namespace", default="", help="Where Prometheus runs.")
@click.option("--kuberay-namespace", default="", help="Where KubeRay's operator runs.")
@click.option("--metrics-port", default=8080, show_default=True)
@click.option("--health-port", default=8081, show_default=True)
@click.option("--resync-seconds", default=300.0, show_default=True, help="Between two lists.")
@click.option("--kubeconfig", default="", help="File with credentials. Default: the pod's.")
@click.option("--log-level", default="info", show_default=True)
def main(log_level: str, namespaces: str, gateway: str, gateway_domain: str, **given: Any) -> None:
    """Run until SIGTERM."""
    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    given["lease_namespace"] = given["lease_namespace"] or own_namespace()
    given["identity"] = given["identity"] or own_identity()
    if not given["lease_namespace"]:
        raise click.UsageError("--lease-namespace is empty and this is no pod. Set it.")
    settings = Settings(
        namespaces=tuple(each.strip() for each in namespaces.split(",") if each.strip()),
        gateway=_gateway(gateway, gateway_domain),
        **given,
    )
    try:
        asyncio.run(_run(settings))
    except EmbedfleetError as error:
        raise click.ClickException(error.message) from None


def _gateway(reference: str, domain: str) -> Gateway | None:
    if not reference:
        return None
    namespace, slash, name = reference.partition("/")
    if not (namespace and slash and name):
        raise click.UsageError(f"--gateway is {reference!r}: write NAMESPACE/NAME.")
    return Gateway(name, namespace, domain)


async def _run(settings: Settings) -> None:
    configuration = await credentials(settings.kubeconfig)
    async with ApiClient(configuration) as client:
        operator = Operator(settings, Connections(transport(client)))
        ports = (settings.health_port, settings.metrics_port)
        task = asyncio.create_task(operator.run())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        async with serve_health(ports, operator.metrics, lambda: "", operator.not_ready):
            with suppress(asyncio.CancelledError):
                await task
            with suppress(Exception):
                await operator.release()


if __name__ == "__main__":
    sys.exit(main())
