"""A pod's volumes as folders of this machine, and where its containers want them.

Written once, when the pod starts: a ConfigMap that changes later changes no file here, though a
kubelet would follow it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.environment import Find, Missing, data_of

__all__ = ["ACCOUNT_FOLDER", "Folders", "Mount", "mounts", "volumes"]

ACCOUNT_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"

Resource = Mapping[str, Any]


@dataclass(frozen=True)
class Mount:
    """A folder or file of this machine inside a container."""

    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Folders:
    """Where a pod's volumes lie.

    Attributes:
        own: Goes with the pod.
        memory: Likewise, in memory.
        claims: Those of PersistentVolumeClaims, which outlive it.
    """

    own: Path
    memory: Path
    claims: Path


def volumes(
    pod: Resource, folders: Folders, find: Find, token: Callable[[], str]
) -> dict[str, Path]:
    """Make the volumes of a pod.

    Raises:
        Missing: A ConfigMap, Secret or key is not there and not optional.
    """
    found = {}
    for each in pod["spec"].get("volumes", ()):
        name = each["name"]
        if "emptyDir" in each:
            memory = (each["emptyDir"] or {}).get("medium") == "Memory"
            folder = (folders.memory if memory else folders.own) / name
        elif "hostPath" in each:
            folder = Path(each["hostPath"]["path"])
        elif "persistentVolumeClaim" in each:
            claim = each["persistentVolumeClaim"]["claimName"]
            folder = folders.claims / pod["metadata"]["namespace"] / claim
        else:
            folder = folders.own / name
            files = dict(_files(pod, each, find, token))
            for path, content in files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)
        folder.mkdir(parents=True, exist_ok=True)
        # Any user of an image may write, as into a volume whose group is the pod's.
        folder.chmod(0o1777)
        found[name] = folder
    return found


def mounts(container: Resource, made: Mapping[str, Path]) -> list[Mount]:
    """Say what a container mounts, the outer before what lies in it."""
    found = []
    for each in container.get("volumeMounts", ()):
        source = made[each["name"]] / each.get("subPath", "")
        if each.get("subPath") and not source.exists():
            source.mkdir(parents=True)
        found.append(Mount(source, each["mountPath"], each.get("readOnly", False)))
    return sorted(found, key=lambda mount: mount.target.count("/"))


def _files(
    pod: Resource, source: Resource, find: Find, token: Callable[[], str]
) -> Iterable[tuple[str, bytes]]:
    if "projected" in source:
        for each in source["projected"]["sources"]:
            yield from _files(pod, each, find, token)
    elif "serviceAccountToken" in source:
        yield source["serviceAccountToken"]["path"], token().encode()
    elif "downwardAPI" in source:
        for item in source["downwardAPI"].get("items", ()):
            value = pod["metadata"].get(item["fieldRef"]["fieldPath"].removeprefix("metadata."))
            text = value if isinstance(value, str) else _lines(value or {})
            yield item["path"], text.encode()
    else:
        kind, reference = (
            ("Secret", source["secret"])
            if "secret" in source
            else ("ConfigMap", source["configMap"])
        )
        data = data_of(kind, reference, find)
        items = reference.get("items") or [{"key": key, "path": key} for key in data]
        for item in items:
            if item["key"] in data:
                yield item["path"], data[item["key"]]
            elif not reference.get("optional"):
                raise Missing(f"{kind} of volume {source} has no key {item['key']}")


def _lines(values: Mapping[str, str]) -> str:
    return "".join(f'{key}="{value}"\n' for key, value in sorted(values.items()))
