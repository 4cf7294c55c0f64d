"""What Serve's processes must find in their environment, on a laptop as in a pod.

Serve reads these as constants when it is imported, in every Ray process, so they go to the head and
to every worker alike (ray 2.60, serve/_private/constants.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["SERVE_FLAGS"]

SERVE_FLAGS: Final[Mapping[str, str]] = {
    # HAProxy instead of Serve's Python proxy, replicas with gRPC servers of their own.
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # A batch of 1,024 vectors is larger than the 4 MiB that hops between deployments allow.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**31 - 1),
    # Ray starts workers at niceness 15; a replica is what the machine is there for.
    "RAY_worker_niceness": "0",
    # How soon load is seen by autoscaling.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",
    # What a message may become once decompressed, whatever the fleet says. Its own limit is kept by
    # the edge, which knows a call's first message as it is sent, and by who parses a message.
    "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(512 * 1024 * 1024),
    # A proxy that is not ready by then is killed and started again. On a machine whose cores are
    # busy with replicas that start as well, five seconds, Serve's own, are too few.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    # A worker that was reloaded away may finish its calls for as long as a call may take.
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "600",
    # HAProxy 2.8 stops reading a connection while one of its streams has an unread answer, so a
    # client that never reads would hold up all that share it.
    "RAY_SERVE_HAPROXY_H2_BE_MAX_CONCURRENT_STREAMS": "1",
    # A replica that does not answer its health check cannot finish its calls either: they are made
    # again elsewhere as soon as it is gone.
    "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",
    # Old HAProxy workers let go of long-lived connections after a reload.
    "RAY_SERVE_HAPROXY_CLOSE_SPREAD_TIME_S": "5",
}
