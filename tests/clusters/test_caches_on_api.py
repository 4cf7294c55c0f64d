"""Caches' objects on a real API server: accepted as written, and Jobs that end as they should.

Kubernetes' own Job controller runs; there is no kubelet, so what a pod comes to is written here.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from control_plane import ControlPlane, control_plane, controllers, missing, wait
from operator_cases import TARGET, only
from operator_course import FIRST, REASON, REST_SECONDS, prepared, resource, rollout
from operator_world import PATIENCE_SECONDS, World

from embedfleet.rendering.cache import CacheReport, FetchResult
from embedfleet.resources import ModelCache, parse_manifests
from embedfleet_operator.cluster.kinds import kind_of
from embedfleet_operator.crds.status import CacheStatus
from embedfleet_operator.deciding.differences import covers
from embedfleet_operator.rendering.caching import CONTAINER, cache_objects, job_name
from embedfleet_operator.reporting.cache import CacheObservation, cache_status

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "everything is there")

GOLDEN = Path(__file__).parents[1] / "unit" / "golden" / "caches" / "caches.yaml"
CACHES = parse_manifests(GOLDEN.read_text()).caches
STRICT = {"pod-security.kubernetes.io/enforce": "restricted"}
MERGE = {"Content-Type": "application/merge-patch+json"}


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with (
        tempfile.TemporaryDirectory(prefix="ef-plane-") as folder,
        control_plane(Path(folder)) as running,
        controllers(running),
    ):
        for name, labels in (("search", {}), ("strict", STRICT)):
            metadata = {"name": name, "labels": labels}
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
            running.apply(f"/api/v1/namespaces/{name}", namespace)
        yield running


@pytest.fixture(scope="module")
def client(plane: ControlPlane) -> Iterator[httpx.Client]:
    with plane.client() as connected:
        yield connected


def address(manifest: dict[str, Any]) -> str:
    metadata = manifest["metadata"]
    group, kind = {
        "Job": ("apis/batch/v1", "jobs"),
        "PersistentVolumeClaim": ("api/v1", "persistentvolumeclaims"),
    }[manifest["kind"]]
    return f"/{group}/namespaces/{metadata['namespace']}/{kind}/{metadata['name']}"


@pytest.mark.parametrize("cache", CACHES, ids=lambda cache: cache.name)
def test_what_is_stored_is_what_was_said(plane: ControlPlane, cache: ModelCache) -> None:
    for manifest in cache_objects(cache, TARGET):
        stored = plane.apply(address(manifest), manifest, dryRun="All")
        assert covers(stored, manifest)


@pytest.mark.parametrize("cache", CACHES, ids=lambda cache: cache.name)
def test_pods_run_where_the_restricted_standard_is_enforced(
    client: httpx.Client, cache: ModelCache
) -> None:
    template = only(cache_objects(cache, TARGET), "Job")["spec"]["template"]
    pod = {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "a", **template["metadata"]}, "spec": template["spec"],
    }  # fmt: skip
    path = "/api/v1/namespaces/strict/pods"
    response = client.post(path, json=pod, params={"dryRun": "All"})
    assert response.is_success == (cache.name != "path"), response.text
    if cache.name == "path":
        assert "hostPath" in response.json()["message"], "the one thing that the standard forbids"


def pods_of(client: httpx.Client, cache: ModelCache) -> list[dict[str, Any]]:
    found = client.get(
        "/api/v1/namespaces/default/pods",
        params={"labelSelector": f"embedfleet.io/cache={cache.name}"},
    )
    items: list[dict[str, Any]] = found.raise_for_status().json()["items"]
    return items


def ends(client: httpx.Client, pod: dict[str, Any], code: int, report: CacheReport) -> None:
    """Write what a kubelet would when the container ends."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    state = {"exitCode": code, "message": report.to_text(), "startedAt": now, "finishedAt": now}
    container = {
        "name": CONTAINER, "image": "x", "imageID": "", "ready": False, "restartCount": 0,
        "state": {"terminated": {**state, "reason": "Error" if code else "Completed"}},
    }  # fmt: skip
    status = {"phase": "Failed" if code else "Succeeded", "containerStatuses": [container]}
    path = f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}/status"
    client.patch(path, json={"status": status}, headers=MERGE).raise_for_status()


def status_of(client: httpx.Client, cache: ModelCache) -> CacheStatus:
    job = client.get(f"/apis/batch/v1/namespaces/default/jobs/{job_name(cache)}")
    seen = CacheObservation(1, job=job.json(), pods=pods_of(client, cache))
    return cache_status(cache, seen, datetime.now(UTC))


def cached(status: CacheStatus) -> str:
    return next(str(c.reason) for c in status.conditions or () if c.type == "Cached")


def start(plane: ControlPlane, client: httpx.Client, name: str) -> ModelCache:
    (cache,) = (each for each in CACHES if each.name == name)
    for manifest in cache_objects(cache, TARGET):
        plane.apply(address(manifest), manifest)
    wait(lambda: len(pods_of(client, cache)) == 1, "the Job's pod")
    assert cached(status_of(client, cache)) == "Fetching"
    return cache


def test_wrong_files_end_the_job_at_the_first_attempt(
    plane: ControlPlane, client: httpx.Client
) -> None:
    cache = start(plane, client, "s3")
    said = CacheReport(result=FetchResult.DIGEST_MISMATCH, message="The weights are others.")
    ends(client, pods_of(client, cache)[0], 2, said)
    wait(lambda: cached(status_of(client, cache)) == "DigestMismatch", "the Job to give up")
    status = status_of(client, cache)
    assert "The weights are others." in (status.conditions or ())[1].message
    assert len(pods_of(client, cache)) == 1


def test_a_source_that_broke_off_is_tried_again(plane: ControlPlane, client: httpx.Client) -> None:
    cache = start(plane, client, "gcs")
    broke_off = CacheReport(result=FetchResult.FETCH_FAILED, message="It broke off.")
    ends(client, pods_of(client, cache)[0], 1, broke_off)
    wait(lambda: len(pods_of(client, cache)) == 2, "another pod")
    assert cached(status_of(client, cache)) == "Fetching"
    second = max(pods_of(client, cache), key=lambda pod: pod["metadata"]["creationTimestamp"])
    done = CacheReport(
        result=FetchResult.FETCHED, message="", num_bytes=7, weights_digest="a" * 64,
        tokenizer_digest="b" * 64,
    )  # fmt: skip
    ends(client, second, 0, done)
    wait(lambda: cached(status_of(client, cache)) == "Fetched", "the Job to be complete")
    status = status_of(client, cache)
    assert (status.cached_bytes, status.weights_digest) == (7, "a" * 64)


IN_PLACE = resource(
    "ModelCache", "weights", source={"pvc": {"claimName": "team.models", "folder": "/qwen3"}}
)
CACHED = {"size": "0.6B", "cache": "weights"}


@pytest.mark.skipif(bool(REASON), reason=REASON or "everything is there")
async def test_a_cache_that_is_deleted_stays_under_the_workers_that_mount_it() -> None:
    """No kubelet and no KubeRay run here: that the files are there is written into the Job."""
    with prepared() as plane:
        async with rollout(plane, "held") as (world, wire):
            await world.create(FIRST[0], IN_PLACE)
            await until(lambda: completed(world), expected=1)
            await world.create(resource("Embedder", "docs", fleet="built", model=CACHED))
            await until(lambda: claims(world), expected=["team.models"])
            before = await worker_of(world)

            await world.delete("ModelCache", "weights")
            await until(lambda: progressing(world), expected="InUse")
            await wire.quiet(REST_SECONDS)
            assert await worker_of(world) == before

            await world.delete("Embedder", "docs")
            await until(lambda: progressing(world), expected=None)


async def until(found: Callable[[], Awaitable[Any]], expected: Any) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await found() != expected:
            await asyncio.sleep(0.2)


async def worker_of(world: World) -> dict[str, Any]:
    """Read the pod of the fleet's first pool; empty before there is one."""
    spec = (await world.get("RayService", "built")).get("spec")
    groups = spec["rayClusterConfig"]["workerGroupSpecs"] if spec else [{}]
    pod: dict[str, Any] = groups[0].get("template", {}).get("spec", {})
    return pod


async def claims(world: World) -> list[str]:
    volumes = (await worker_of(world)).get("volumes", ())
    mounted = (each.get("persistentVolumeClaim") for each in volumes)
    return [each["claimName"] for each in mounted if each]


async def progressing(world: World) -> str | None:
    """Read the cache's reason; None once it is gone."""
    cache = await world.get("ModelCache", "weights")
    conditions = cache.get("status", {}).get("conditions", ())
    return next((each["reason"] for each in conditions if each["type"] == "Progressing"), None)


async def completed(world: World) -> int:
    """Write into the Jobs that are there that they are complete, and count them."""
    jobs = (await world.api.list_all(kind_of("Job"), world.namespace)).items
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    done = [
        {"type": kind, "status": "True", "lastTransitionTime": now, "reason": "Done"}
        for kind in ("SuccessCriteriaMet", "Complete")
    ]
    status = {"startTime": now, "completionTime": now, "succeeded": 1, "conditions": done}
    with world.plane.client() as client:
        for job in jobs:
            path = f"{address(job)}/status"
            client.patch(path, json={"status": status}, headers=MERGE).raise_for_status()
    return len(jobs)
