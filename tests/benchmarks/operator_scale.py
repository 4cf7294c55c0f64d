"""The operator before a thousand models: how soon all is said, at what cost, and whether it rests.

A real API server; Ray clusters are in memory, so that what is measured is the operator's own work.
The models are echoes: of others it would also record golden outputs once, one object a model.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx
from control_plane import ControlPlane, control_plane, missing
from support.report import arguments, begin, note

from embedfleet_operator.crds import KINDS, definition

GROUP = "/apis/embedfleet.io/v1alpha1"
AT_ONCE = 16
SETTLED_SECONDS = 6.0
PATIENCE_SECONDS = 600.0


def manifests(fleets: int, models: int, namespaces: int) -> list[tuple[str, dict[str, Any]]]:
    """Give each resource with its address: fleets first, models evenly in them."""
    found = []
    for number in range(fleets):
        namespace, name = f"team-{number % namespaces}", f"fleet-{number}"
        host = f"ray-{number}.example"
        spec = {"existingCluster": {"dashboard": f"http://{host}:8265", "serveHost": host}}
        found.append((namespace, resource("Fleet", name, spec)))
    for number in range(models):
        fleet = number % fleets
        spec = {
            "fleet": f"fleet-{fleet}",
            "model": {"source": "embedded/embedder"},
            "backend": "echo",
        }
        found.append((f"team-{fleet % namespaces}", resource("Embedder", f"m-{number}", spec)))
    return [
        (f"{GROUP}/namespaces/{namespace}/{each['kind'].lower()}s", each)
        for namespace, each in found
    ]


def resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "embedfleet.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


async def create(plane: ControlPlane, wanted: list[tuple[str, dict[str, Any]]]) -> None:
    with plane.client() as sync:
        headers = dict(sync.headers)
    places = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(base_url=plane.url, headers=headers, verify=False) as client:

        async def one(address: str, body: dict[str, Any]) -> None:
            async with places:
                response = await client.post(address, json=body, timeout=60)
                assert response.status_code == 201, response.text

        async with asyncio.TaskGroup() as group:
            for address, body in wanted:
                group.create_task(one(address, body))


@contextmanager
def operating(plane: ControlPlane) -> Iterator[Iterator[dict[str, float]]]:
    """Run the operator; gives its reports as they come."""
    script = Path(__file__).parent / "support" / "operating.py"
    process = subprocess.Popen(
        [sys.executable, script, plane.kubeconfig()],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield map(json.loads, process.stdout)
    finally:
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def unready(plane: ControlPlane) -> int:
    """Count the models that are not said to be ready."""
    with plane.client() as client:
        items = client.get(f"{GROUP}/embedders").json()["items"]
    conditions = (each.get("status", {}).get("conditions", ()) for each in items)
    ready = sum(
        any(c["type"] == "Ready" and c["status"] == "True" for c in each) for each in conditions
    )
    return len(items) - ready


def measure(plane: ControlPlane, rest_seconds: float) -> tuple[float, dict[str, float], int]:
    """Return seconds to the first steady state, the report then, and writes while at rest."""
    began = time.monotonic()
    with operating(plane) as reports:
        steady: dict[str, float] = {}
        for report in reports:
            passed = time.monotonic() - began
            if report["resting"] > SETTLED_SECONDS and not unready(plane):
                steady = report
                break
            assert passed < PATIENCE_SECONDS, f"no rest: {report}, {unready(plane)} are not ready"
        seconds = passed - steady["resting"]
        note(f"steady after {seconds:.1f} s, {steady['cpu']:.1f} s of them on a core")
        last = steady
        for report in reports:
            last = report
            if time.monotonic() - began > passed + rest_seconds:
                break
    note(f"cores at rest: {(last['cpu'] - steady['cpu']) / rest_seconds:.3f}")
    steady["peak_kib"] = last["peak_kib"]
    return seconds, steady, int(last["writes"] - steady["writes"])


def main() -> None:
    told = arguments(__doc__, fleets=20, models=1000, namespaces=20, rest=30.0)
    if reason := missing():
        sys.exit(reason)
    begin("operator", f"{told.models} models in {told.fleets} fleets", "none")
    with (
        tempfile.TemporaryDirectory(prefix="ef-scale-") as folder,
        control_plane(Path(folder)) as plane,
    ):
        plane.install([definition(kind) for kind in KINDS])
        for number in range(told.namespaces):
            name = f"team-{number}"
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            plane.apply(f"/api/v1/namespaces/{name}", namespace)
        wanted = manifests(told.fleets, told.models, told.namespaces)
        asyncio.run(create(plane, wanted))
        note(f"{len(wanted)} resources are there")
        seconds, steady, writes = measure(plane, told.rest)
    each = steady["calls"] / len(wanted)
    note(f"{steady['writes'] / len(wanted):.2f} of the calls for each resource are writes")
    note(f"resident at most: {steady['peak_kib'] / 1024:.0f} MiB")
    print("reach: steady below 60 s, 4 calls, 300 MB, no write at rest")
    print(f"operator: steady {seconds:.1f} s, calls {each:.2f}, writes at rest {writes}")


if __name__ == "__main__":
    main()
