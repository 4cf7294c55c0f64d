"""An operator in a process of its own, over Ray clusters in memory; tells how it is, line by line.

Usage: python operating.py KUBECONFIG    until its standard input ends

Each line is what it had asked and written so far, and the most memory that it ever held.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from kubernetes.aio.client import ApiClient
from memory_serve import Guest, Serve
from operator_world import Wire

from embedfleet.resources import Fleet
from embedfleet_operator.acting.serve_clusters import ServeCluster
from embedfleet_operator.cluster.transport import credentials, transport
from embedfleet_operator.process import Connections, Operator
from embedfleet_operator.settings import Settings

REPORT_SECONDS = 0.25


def peak_kib() -> int:
    """Read the most memory held; what `getrusage` tells includes that of whoever started this."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


async def main(kubeconfig: str) -> None:
    clusters: defaultdict[str, Guest] = defaultdict(lambda: Guest(Serve()))

    def connect(fleet: Fleet, dashboard: str, token: str) -> ServeCluster:
        return clusters[dashboard]

    async with ApiClient(await credentials(kubeconfig)) as client:
        wire = Wire(transport(client))
        settings = Settings(lease_namespace="default", identity="benchmark")
        operator = Operator(settings, Connections(wire.send, connect))
        running = asyncio.create_task(operator.run())
        ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        while not ended.done() and not running.done():
            last = wire.log[-1][1] if wire.log else 0.0
            print(
                json.dumps(
                    {
                        "calls": wire.calls,
                        "writes": wire.writes,
                        "resting": time.monotonic() - last if last else 0.0,
                        "peak_kib": peak_kib(),
                        "cpu": time.process_time(),
                    }
                ),
                flush=True,
            )
            await asyncio.sleep(REPORT_SECONDS)
        running.cancel()
        await asyncio.wait([running])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
