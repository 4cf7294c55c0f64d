"""ModelCaches on Kubernetes: golden manifests, and what must hold in each of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from operator_cases import TARGET, given, only, render_all, rendered

from embedfleet.rendering.plan import Impact
from embedfleet.resources import ModelCache, parse_manifests
from embedfleet.resources.model_cache import ModelCacheSpec
from embedfleet_operator.planning.plan import plan
from embedfleet_operator.rendering import Manifest, render, to_yaml
from embedfleet_operator.rendering.caching import cache_objects, claim_name, job_name

GOLDEN = Path(__file__).parent / "golden" / "caches"
CACHES = parse_manifests((GOLDEN / "caches.yaml").read_text()).caches
HEAD = "apiVersion: embedfleet.io/v1alpha1\n"
every_cache = pytest.mark.parametrize("cache", CACHES, ids=lambda cache: cache.name)


def job_of(cache: ModelCache) -> Manifest:
    return only(cache_objects(cache, TARGET), "Job")


def pod_of(cache: ModelCache) -> dict[str, Any]:
    pod: dict[str, Any] = job_of(cache)["spec"]["template"]["spec"]
    return pod


def changed(cache: ModelCache, **spec: object) -> ModelCache:
    return cache.model_copy(update={"spec": cache.spec.model_copy(update=spec)})


def test_objects_are_those_that_were_reviewed(request: pytest.FixtureRequest) -> None:
    path = GOLDEN / "objects.yaml"
    text = to_yaml(tuple(each for cache in CACHES for each in cache_objects(cache, TARGET)))
    if request.config.getoption("--rewrite-golden"):
        path.write_text(text)
    assert text == path.read_text()


@every_cache
def test_a_job_is_told_what_the_spec_says(cache: ModelCache) -> None:
    spec, folder = pod_of(cache)["containers"][0]["args"]
    told = ModelCacheSpec.model_validate_json(spec)
    assert told.model_copy(update={"revision": None, "storage": cache.spec.storage}) == cache.spec
    assert told.commit == cache.spec.commit
    (mount, _) = pod_of(cache)["containers"][0]["volumeMounts"]
    assert (mount["mountPath"], folder) == (folder, f"/models/{cache.name}")


@every_cache
def test_pods_meet_the_restricted_standard_unless_a_nodes_folder_is_asked_for(
    cache: ModelCache,
) -> None:
    pod = pod_of(cache)
    # https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    kinds = {kind for volume in pod["volumes"] for kind in volume.keys() - {"name"}}
    expected = {"hostPath" if cache.name == "path" else "persistentVolumeClaim", "emptyDir"}
    assert kinds == expected


@every_cache
def test_only_what_is_fetched_is_written_and_claimed(cache: ModelCache) -> None:
    fetched = cache.name not in ("path", "pvc")
    kinds = [each["kind"] for each in cache_objects(cache, TARGET)]
    assert kinds == (["PersistentVolumeClaim"] if fetched else []) + ["Job"]
    (mount, _) = pod_of(cache)["containers"][0]["volumeMounts"]
    assert mount.get("readOnly", False) is not fetched
    if fetched:
        claim = only(cache_objects(cache, TARGET), "PersistentVolumeClaim")
        volume = pod_of(cache)["volumes"][0]["persistentVolumeClaim"]
        assert volume == {"claimName": claim["metadata"]["name"]} == {
            "claimName": claim_name(cache)
        }  # fmt: skip


@every_cache
def test_secrets_are_never_written_out(cache: ModelCache) -> None:
    """Whoever may read a Job must not read a Secret by it, and a missing one must show."""
    (container,) = pod_of(cache)["containers"]
    references = [each for each in container["env"] if "valueFrom" in each]
    assert all("optional" not in each["valueFrom"]["secretKeyRef"] for each in references)
    assert all("optional" not in each["secretRef"] for each in container.get("envFrom", []))
    named = len(references) + len(container.get("envFrom", []))
    assert named == {"path": 0, "pvc": 0, "s3": 2}.get(cache.name, 1)


def test_what_is_fetched_is_in_the_jobs_name() -> None:
    (hub,) = (each for each in CACHES if each.name == "hub")
    name = job_name(hub)
    digests = hub.spec.digests.model_copy(update={"tokenizer": "ab" * 32})
    assert job_name(changed(hub, digests=digests)) != name
    assert job_name(changed(hub, revision="0" * 40)) != name
    # What the release pins, written out; and what says nothing of the files.
    assert job_name(changed(hub, revision=hub.spec.commit)) == name
    assert job_name(changed(hub, storage=None)) == name


def test_a_job_is_pulled_and_runs_as_it_is_told() -> None:
    (s3,) = (each for each in CACHES if each.name == "s3")
    told = changed(s3, image_pull_secrets=("r.example",), service_account_name="reader")
    assert pod_of(told) == pod_of(s3) | {
        "imagePullSecrets": [{"name": "r.example"}], "serviceAccountName": "reader",
    }  # fmt: skip
    # A Job whose image could not be pulled never changes: what mends it is another one.
    named = (changed(s3, image_pull_secrets=("r.example",)), told, s3)
    assert len({job_name(each) for each in named}) == 3


def test_the_longest_name_fits_where_it_is_repeated() -> None:
    """A Job's name becomes a label of its pods: 63 characters at most."""
    longest = f"{HEAD}kind: ModelCache\nmetadata: {{name: {'a' * 47}}}\n"
    (cache,) = parse_manifests(f"{longest}spec: {{source: {{path: {{folder: /m}}}}}}\n").caches
    assert len(job_name(cache)) <= 63
    (volume, _) = pod_of(cache)["volumes"]
    assert len(volume["name"]) <= 63


@every_cache
def test_a_failure_that_no_attempt_mends_ends_the_job(cache: ModelCache) -> None:
    spec = job_of(cache)["spec"]
    first = spec["podFailurePolicy"]["rules"][0]
    assert (first["action"], first["onExitCodes"]["values"]) == ("FailJob", [2])
    assert spec["template"]["spec"]["restartPolicy"] == "Never", "a failure policy asks for it"
    assert "ttlSecondsAfterFinished" not in spec, "a Job that is gone would be fetched again"


def worker(manifests: tuple[Manifest, ...]) -> dict[str, Any]:
    cluster = only(manifests, "RayService")["spec"]["rayClusterConfig"]
    assert "cache-" not in json.dumps(cluster["headGroupSpec"]), "no replica runs on the head"
    pod: dict[str, Any] = cluster["workerGroupSpecs"][0]["template"]["spec"]
    return pod


def test_replicas_find_what_their_models_name_and_cannot_change_it() -> None:
    pod = worker(rendered("cached"))
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert volumes.keys() == {"tmp", "cache-small", "cache-tuned"}
    assert volumes["cache-small"]["persistentVolumeClaim"] == {
        "claimName": "small-cache", "readOnly": True,
    }  # fmt: skip
    assert volumes["cache-tuned"]["persistentVolumeClaim"]["claimName"] == "team.models"
    mounts = {each["name"]: each for each in pod["containers"][0]["volumeMounts"]}
    assert mounts["cache-small"]["mountPath"] == "/models/small"
    assert mounts["cache-tuned"]["subPath"] == "qwen3/tuned"
    assert mounts["cache-small"]["readOnly"] is mounts["cache-tuned"]["readOnly"] is True


def test_a_cache_that_is_gone_moves_nothing_under_those_who_serve_from_it() -> None:
    manifests = given("cached")
    kept = tuple(each for each in manifests.caches if each.name != "small")
    fleet = manifests.only_fleet()

    without = render(fleet, manifests.models, TARGET, caches=kept)
    assert worker(without) == worker(rendered("cached"))


def with_model(model: str) -> tuple[Manifest, ...]:
    return render_all(
        parse_manifests(
            f"{HEAD}kind: Fleet\nmetadata: {{name: f}}\nspec: {{pools: [{{name: a}}]}}\n---\n"
            f"{HEAD}kind: Embedder\nmetadata: {{name: docs}}\nspec: {{model: {{{model}}}}}\n"
        )
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("size: 0.6B", "size: 0.6B, cache: weights"),
        ("size: 0.6B, cache: weights", "size: 0.6B"),
        ("size: 0.6B, cache: weights", "size: 0.6B, cache: other"),
    ],
    ids=["into-a-cache", "out-of-a-cache", "into-another"],
)
def test_a_model_that_moves_to_other_files_needs_other_pods(before: str, after: str) -> None:
    found = plan(with_model(before), with_model(after), immutable=["emb-docs"])
    fields = {(each.resource, each.field): each.impact for each in found.changes}
    names = {name.removeprefix("cache: ") for name in (*before.split(", "), *after.split(", "))}
    moved = [n for n in ("weights", "other") if (n in names) and not (n in before and n in after)]
    assert fields == {
        ("Embedder/docs", "spec.model.cache"): Impact.RESTART_APP,
        **{("Fleet/f", f"spec.model.cache ({name})"): Impact.NEW_CLUSTER for name in moved},
    }


def test_another_cache_alone_may_be_another_model() -> None:
    before, after = with_model("cache: weights"), with_model("cache: other")
    assert plan(before, after, immutable=["emb-docs"]).refused
    assert not plan(before, after).refused
