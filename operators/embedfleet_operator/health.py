"""How the operator itself is: probes for the kubelet, metrics for Prometheus."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

__all__ = ["Metrics", "serve_health"]

_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


@dataclass
class Metrics:
    """The operator's own metrics, all named `embedfleet_operator_*`."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        prefix = "embedfleet_operator_"
        self.reconcile_seconds = Histogram(
            f"{prefix}reconcile_seconds", "Duration of one reconcile.", ["kind"],
            registry=self.registry, buckets=_BUCKETS,
        )  # fmt: skip
        self.reconcile_errors = Counter(
            f"{prefix}reconcile_errors", "Reconciles that failed.", ["kind", "reason"],
            registry=self.registry,
        )  # fmt: skip
        self.api_requests = Counter(
            f"{prefix}api_requests", "Requests to the API server.", ["method", "status"],
            registry=self.registry,
        )  # fmt: skip
        self.queue_length = Gauge(
            f"{prefix}queue_length", "Resources that wait for a worker.", registry=self.registry
        )
        self.leader = Gauge(
            f"{prefix}leader", "Whether this process holds the lease.", registry=self.registry
        )


@asynccontextmanager
async def serve_health(
    ports: tuple[int, int],
    metrics: Metrics,
    is_alive: Callable[[], str],
    is_ready: Callable[[], str],
) -> AsyncIterator[None]:
    """Answer probes and scrapes while the block runs.

    Args:
        ports: Of probes and of metrics; the same port serves both.
        metrics: What is scraped.
        is_alive: Says why the process should be restarted; empty if it should not.
        is_ready: Says why it is not ready; empty if it is.
    """

    def probe(why_not: Callable[[], str]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(_: web.Request) -> web.Response:
            reason = why_not()
            return web.Response(status=503 if reason else 200, text=reason or "ok")

        return answer

    async def scrape(_: web.Request) -> web.Response:
        body = generate_latest(metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    health, scraped = ports
    apps = {port: web.Application() for port in ports}
    apps[health].router.add_get("/healthz", probe(is_alive))
    apps[health].router.add_get("/readyz", probe(is_ready))
    apps[scraped].router.add_get("/metrics", scrape)
    async with AsyncExitStack() as stack:
        for port, app in apps.items():
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, port=port).start()
        yield
