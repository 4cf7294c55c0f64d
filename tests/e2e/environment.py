"""A container's environment and command, from its pod and what the pod refers to (pure).

As Kubernetes documents: `$(NAME)` in values and arguments stands for a variable that is already
known, `$$` for a dollar (kubernetes.io, "Define Environment Variables for a Container").
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

__all__ = ["Find", "Missing", "arguments", "data_of", "variables"]

Resource = Mapping[str, Any]
Find = Callable[[str, str], Resource | None]
"""Reads a ConfigMap or Secret of the pod's namespace by kind and name."""

_REFERENCE = re.compile(r"\$\$|\$\(([^)]+)\)")
_UNITS = {"m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


class Missing(Exception):
    """Something that a pod refers to is not there yet."""


def variables(pod: Resource, container: Resource, address: str, find: Find) -> dict[str, str]:
    """Give the variables that a container asks for.

    Raises:
        Missing: A ConfigMap, Secret or key is not there and not optional.
    """
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        for kind, field in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
            if field in source:
                data = data_of(kind, source[field], find)
                prefix = source.get("prefix", "")
                found.update({f"{prefix}{key}": value.decode() for key, value in data.items()})
    for each in container.get("env", ()):
        if "valueFrom" not in each:
            found[each["name"]] = _expanded(each.get("value", ""), found)
        elif (value := _from(pod, container, address, each["valueFrom"], find)) is not None:
            found[each["name"]] = value
    return found


def arguments(
    container: Resource, entrypoint: tuple[str, ...], known: Mapping[str, str]
) -> list[str]:
    """Give the command with its arguments; the image's entrypoint where no command is given."""
    given = [_expanded(each, known) for each in container.get("args", ())]
    command = [_expanded(each, known) for each in container.get("command", ())]
    return [*(command or entrypoint), *given]


def data_of(kind: str, reference: Resource, find: Find) -> dict[str, bytes]:
    """Read all of a ConfigMap or Secret; nothing of one that is optional and not there.

    Raises:
        Missing: It is not there.
    """
    name = reference.get("name") or reference.get("secretName") or ""
    found = find(kind, name)
    if found is None:
        if reference.get("optional"):
            return {}
        raise Missing(f"{kind} {name} is not there")
    if kind == "Secret":
        return {k: base64.b64decode(v) for k, v in (found.get("data") or {}).items()}
    binary = {k: base64.b64decode(v) for k, v in (found.get("binaryData") or {}).items()}
    return {**{k: v.encode() for k, v in (found.get("data") or {}).items()}, **binary}


def _from(
    pod: Resource, container: Resource, address: str, source: Resource, find: Find
) -> str | None:
    if "fieldRef" in source:
        return _field(pod, address, source["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in source:
        return _resource(pod, container, source["resourceFieldRef"])
    kind, reference = (
        ("Secret", source["secretKeyRef"])
        if "secretKeyRef" in source
        else ("ConfigMap", source["configMapKeyRef"])
    )
    data = data_of(kind, reference, find)
    if reference["key"] not in data:
        if reference.get("optional"):
            return None
        raise Missing(f"{kind} {reference['name']} has no key {reference['key']}")
    return data[reference["key"]].decode()


def _field(pod: Resource, address: str, path: str) -> str:
    known = {
        "status.podIP": address,
        "status.podIPs": address,
        "status.hostIP": address,
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", "default"),
    }
    if path in known:
        return known[path]
    keyed = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    value: Any
    if keyed:
        value = (pod["metadata"].get(keyed[1]) or {}).get(keyed[2], "")
    else:
        value = pod
        for part in path.split("."):
            value = value.get(part, {})
    return str(value or "")


def _resource(pod: Resource, container: Resource, reference: Resource) -> str:
    name = reference.get("containerName")
    owner = next((c for c in pod["spec"]["containers"] if c["name"] == name), container)
    which, _, resource = reference["resource"].partition(".")
    divisor = _amount(reference.get("divisor") or "1") or 1.0
    return str(ceil(_amount(owner["resources"][which][resource]) / divisor))


def _amount(text: str) -> float:
    number = re.fullmatch(r"([\d.]+)(.*)", str(text))
    if number is None:
        raise ValueError(f"{text} is no quantity")
    return float(number[1]) * _UNITS[number[2]]


def _expanded(text: str, known: Mapping[str, str]) -> str:
    def replace(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else known.get(found[1], found[0])

    return _REFERENCE.sub(replace, text)
