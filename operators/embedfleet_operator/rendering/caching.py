"""A ModelCache on Kubernetes: its claim, its Job, and where the pods of replicas find the files.

A Job's pod cannot change, so what it fetches is in its name: another source or digest is another
Job, and the same one is never fetched twice. Nothing here writes to a volume once it is whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from embedfleet.rendering import cache as protocol
from embedfleet.resources.model_cache import ModelCache, ModelCacheSpec, Storage
from embedfleet.resources.model_source import cached_folder
from embedfleet.resources.rules import Model
from embedfleet_operator.rendering.manifests import (
    CACHE_LABEL,
    COMPONENT_LABEL,
    MANAGED_BY,
    RESTRICTED_CONTAINER,
    RESTRICTED_POD,
    Manifest,
    memory_gib,
    pod_identity,
)
from embedfleet_operator.rendering.target import Target

__all__ = ["CONTAINER", "Mounts", "cache_objects", "claim_name", "job_name", "mounts"]

CONTAINER: Final = "fetch"

_CACHE: Final = "cache"
_ATTEMPTS: Final = 6
# Weights are hashed a tensor at a time; the largest of the family takes 2.5 GB in float32.
_RESOURCES: Final = {
    "requests": {"cpu": "500m", "memory": "2Gi"},
    "limits": {"memory": "6Gi"},
}
_GROUP: Final = 1000
"""Owns what is in a new volume, which would otherwise be root's."""


@dataclass(frozen=True, slots=True)
class Mounts:
    """Caches as pods see them.

    Attributes:
        volumes: Of a pod.
        mounts: Of its container.
    """

    volumes: tuple[dict[str, Any], ...] = ()
    mounts: tuple[dict[str, Any], ...] = ()


def cache_objects(cache: ModelCache, target: Target) -> tuple[Manifest, ...]:
    """Build what a cache needs: its claim, unless files are read where they lie, and its Job.

    The Job is to be created where there is none of its name, and otherwise left alone.
    """
    claim = () if cache.spec.in_place else (_claim(cache),)
    return (*claim, _job(cache, target))


def claim_name(cache: ModelCache) -> str:
    """Name the claim that holds a cache's files; empty where a folder of every node does."""
    source = cache.spec.source
    if source.pvc is not None:
        return source.pvc.claim_name
    return "" if source.path is not None else _own_claim(cache.name)


def job_name(cache: ModelCache) -> str:
    """Name the Job that fetches what the spec says: at most 62 characters, since pods repeat it."""
    # Another identity is another Job too: one whose image could not be pulled would wait for ever.
    identity = _identity(cache.spec)
    text = _spec_text(cache.spec) + (json.dumps(identity, sort_keys=True) if identity else "")
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{cache.name}-fetch-{digest[:8]}"


def mounts(models: Iterable[Model], caches: Sequence[ModelCache]) -> Mounts:
    """Mount the caches that models name, each where its replicas look for it.

    A cache that is no longer there was fetched: what serves from it goes on with its claim.
    """
    by_name = {cache.name: cache for cache in caches}
    names = sorted({name for model in models if (name := model.spec.model.cache)})
    volumes = [_volume(name, by_name.get(name)) for name in names]
    inside = [_mount(name, by_name.get(name)) for name in names]
    return Mounts(tuple(volumes), tuple(inside))


def _own_claim(name: str) -> str:
    return f"{name}-cache"


def _spec_text(spec: ModelCacheSpec) -> str:
    """Write what the fetcher is told: equal specs, equal bytes; a pinned commit is filled in."""
    content = spec.model_dump(
        mode="json",
        by_alias=True,
        exclude_none=True,
        exclude={"storage", "image_pull_secrets", "service_account_name"},
    )
    if spec.commit:
        content["revision"] = spec.commit
    return json.dumps(content, sort_keys=True)


def _identity(spec: ModelCacheSpec) -> dict[str, Any]:
    return pod_identity(spec.image_pull_secrets, spec.service_account_name)


def _manifest(api: str, cache: ModelCache, name: str, spec: dict[str, Any]) -> Manifest:
    api_version, _, kind = api.rpartition("/")
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": cache.metadata.namespace or "default",
            "labels": {
                "app.kubernetes.io/name": "embedfleet",
                "app.kubernetes.io/instance": cache.name,
                **dict((MANAGED_BY,)),
                **_pod_labels(cache),
            },
        },
        "spec": spec,
    }


def _pod_labels(cache: ModelCache) -> dict[str, str]:
    return {CACHE_LABEL: cache.name, COMPONENT_LABEL: _CACHE}


def _claim(cache: ModelCache) -> Manifest:
    storage = cache.spec.storage or Storage()
    spec: dict[str, Any] = {
        "accessModes": [str(storage.access_mode)],
        "resources": {"requests": {"storage": memory_gib(storage.size_gib)}},
        "volumeMode": "Filesystem",
    }
    if storage.storage_class_name is not None:
        spec["storageClassName"] = storage.storage_class_name
    return _manifest("v1/PersistentVolumeClaim", cache, claim_name(cache), spec)


def _job(cache: ModelCache, target: Target) -> Manifest:
    final = {
        "containerName": CONTAINER,
        "operator": "In",
        "values": [protocol.EXIT_FINAL],
    }
    spec = {
        "backoffLimit": _ATTEMPTS,
        "completions": 1,
        "parallelism": 1,
        "podFailurePolicy": {
            "rules": [
                {"action": "FailJob", "onExitCodes": final},
                # A node that is drained is no fault of the source.
                {
                    "action": "Ignore",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                },
            ]
        },
        # Never two writers: the next pod waits until the one before has ended.
        "podReplacementPolicy": "Failed",
        "template": {"metadata": {"labels": _pod_labels(cache)}, "spec": _pod(cache, target)},
    }
    return _manifest("batch/v1/Job", cache, job_name(cache), spec)


def _pod(cache: ModelCache, target: Target) -> dict[str, Any]:
    mount = _mount(cache.name, cache)
    volume = _volume(cache.name, cache)
    if not cache.spec.in_place:
        del mount["readOnly"], volume["persistentVolumeClaim"]["readOnly"]
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        **_identity(cache.spec),
        "securityContext": {
            **RESTRICTED_POD,
            "fsGroup": _GROUP,
            "fsGroupChangePolicy": "OnRootMismatch",
        },
        "containers": [
            {
                "name": CONTAINER,
                "image": target.image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["python", "-m", "embedfleet.fetching"],
                "args": [_spec_text(cache.spec), cached_folder(cache.name)],
                **_credentials(cache.spec),
                "resources": _RESOURCES,
                "securityContext": {**RESTRICTED_CONTAINER, "readOnlyRootFilesystem": True},
                # A crash leaves no last words of its own.
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [mount, {"name": "tmp", "mountPath": "/tmp"}],
            }
        ],
        "volumes": [volume, {"name": "tmp", "emptyDir": {}}],
    }


def _credentials(spec: ModelCacheSpec) -> dict[str, Any]:
    """Hand Secrets over as variables: the pod waits for one that is missing, and says for which."""
    source = spec.source
    home = {"name": "HOME", "value": "/tmp"}
    if source.http is not None and source.http.headers_secret_name is not None:
        secret = {"name": source.http.headers_secret_name}
        prefixed = {"prefix": protocol.HEADER_PREFIX, "secretRef": secret}
        return {"env": [home], "envFrom": [prefixed]}
    named: tuple[tuple[str, str | None, str], ...] = ()
    if source.hub is not None:
        named = ((protocol.HUB_TOKEN, source.hub.token_secret_name, "token"),)
    elif source.s3 is not None:
        secret_name = source.s3.credentials_secret_name
        named = (
            (protocol.S3_KEY_ID, secret_name, "accessKeyId"),
            (protocol.S3_SECRET_KEY, secret_name, "secretAccessKey"),
        )
    elif source.gcs is not None:
        named = ((protocol.GCS_KEY, source.gcs.credentials_secret_name, "key.json"),)
    elif source.oci is not None:
        name = source.oci.pull_secret_name
        named = ((protocol.REGISTRY_CREDENTIALS, name, ".dockerconfigjson"),)
    references = [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret_name, "key": key}}}
        for variable, secret_name, key in named
        if secret_name is not None
    ]
    return {"env": [home, *references]}


def _volume(name: str, cache: ModelCache | None) -> dict[str, Any]:
    if cache is not None and cache.spec.source.path is not None:
        found = {"path": cache.spec.source.path.folder, "type": "Directory"}
        return {"name": f"cache-{name}", "hostPath": found}
    claim = claim_name(cache) if cache is not None else _own_claim(name)
    return {
        "name": f"cache-{name}",
        "persistentVolumeClaim": {"claimName": claim, "readOnly": True},
    }


def _mount(name: str, cache: ModelCache | None) -> dict[str, Any]:
    mount = {"name": f"cache-{name}", "mountPath": cached_folder(name), "readOnly": True}
    pvc = cache.spec.source.pvc if cache is not None else None
    inside = pvc.folder.strip("/") if pvc is not None else ""
    return {**mount, "subPath": inside} if inside else mount
