"""What the tests' own node says: names, environments, statuses, as Kubernetes documents them."""

from __future__ import annotations

import base64
import socket
import struct
from typing import Any

import pytest
from e2e.environment import Missing, arguments, data_of, variables
from e2e.names import answer
from e2e.statuses import Container, phase, status

ADDRESSES = {"web.search.svc.cluster.local": ["10.0.0.7", "10.0.0.8"], "none.yet": []}


def question(name: str, kind: int = 1) -> bytes:
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    return (
        struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)
    )


@pytest.mark.parametrize(
    ("name", "kind", "code", "addresses"),
    [
        ("web.search.svc.cluster.local", 1, 0, ["10.0.0.7", "10.0.0.8"]),
        ("WEB.search.svc.cluster.local", 1, 0, ["10.0.0.7", "10.0.0.8"]),  # case means nothing
        ("web.search.svc.cluster.local", 28, 0, []),  # AAAA: the name is there, such an address not
        ("none.yet", 1, 0, []),
        ("web", 1, 3, []),
    ],
)
def test_names_are_answered(name: str, kind: int, code: int, addresses: list[str]) -> None:
    query = question(name, kind)
    found = answer(query, ADDRESSES.get)
    identity, flags, questions, answers, *_ = struct.unpack_from("!HHHHHH", found)
    assert (identity, flags & 0xF, flags >> 15, questions) == (7, code, 1, 1)
    assert found[12 : len(query)] == query[12:]
    records = [found[at : at + 16] for at in range(len(query), len(found), 16)]
    assert answers == len(records)
    assert [socket.inet_ntoa(each[12:]) for each in records] == addresses


POD: dict[str, Any] = {
    "metadata": {"name": "web-1", "namespace": "search", "labels": {"app": "web"}},
    "spec": {"containers": []},
}
HELD = {
    ("ConfigMap", "words"): {"data": {"greeting": "hello"}},
    ("Secret", "keys"): {"data": {"token": base64.b64encode(b"s3cret").decode()}},
}


def find(kind: str, name: str) -> dict[str, Any] | None:
    return HELD.get((kind, name))


def source(**reference: Any) -> dict[str, Any]:
    return {"name": "X", "valueFrom": reference}


@pytest.mark.parametrize(
    ("each", "value"),
    [
        ({"name": "X", "value": "plain"}, "plain"),
        ({"name": "X"}, ""),
        ({"name": "X", "value": "$(A)/b, $$(A), $(B)"}, "a/b, $(A), $(B)"),
        (source(fieldRef={"fieldPath": "metadata.name"}), "web-1"),
        (source(fieldRef={"fieldPath": "metadata.labels['app']"}), "web"),
        (source(fieldRef={"fieldPath": "status.podIP"}), "10.0.0.7"),
        (source(resourceFieldRef={"resource": "limits.cpu"}), "2"),  # 1500m, rounded up
        (source(resourceFieldRef={"resource": "requests.memory"}), str(2 << 30)),
        (source(resourceFieldRef={"resource": "requests.memory", "divisor": "1Mi"}), "2048"),
        (source(configMapKeyRef={"name": "words", "key": "greeting"}), "hello"),
        (source(secretKeyRef={"name": "keys", "key": "token"}), "s3cret"),
        (source(secretKeyRef={"name": "keys", "key": "other", "optional": True}), None),
    ],
)
def test_variables_come_from_every_source(each: dict[str, Any], value: str | None) -> None:
    resources = {"limits": {"cpu": "1500m"}, "requests": {"memory": "2Gi"}}
    container = {"name": "c", "env": [{"name": "A", "value": "a"}, each], "resources": resources}
    assert variables(POD, container, "10.0.0.7", find).get("X") == value


def test_all_of_a_config_map_becomes_variables() -> None:
    container = {"envFrom": [{"prefix": "P_", "configMapRef": {"name": "words"}}]}
    assert variables(POD, container, "", find) == {"P_greeting": "hello"}


def test_what_is_missing_is_named() -> None:
    with pytest.raises(Missing, match="Secret lost is not there"):
        data_of("Secret", {"name": "lost"}, find)
    assert data_of("Secret", {"name": "lost", "optional": True}, find) == {}


@pytest.mark.parametrize(
    ("container", "command"),
    [
        ({}, ["run"]),
        ({"args": ["--as=$(WHO)"]}, ["run", "--as=me"]),
        ({"command": ["other"], "args": ["x"]}, ["other", "x"]),
    ],
)
def test_a_command_wins_over_the_image(container: dict[str, Any], command: list[str]) -> None:
    assert arguments(container, ("run",), {"WHO": "me"}) == command


def ended(code: int) -> Container:
    return Container("c", waiting="", terminated={"exitCode": code}, over=True, started_at="t")


def runs(*, ready: bool = True) -> Container:
    return Container("c", waiting="", started_at="t", started=True, ready=ready)


@pytest.mark.parametrize(
    ("first", "containers", "expected"),
    [
        ([], [Container("c")], "Pending"),
        ([ended(0)], [Container("c")], "Pending"),
        ([ended(1)], [Container("c")], "Failed"),  # an init container that is not tried again
        ([], [runs(), Container("c")], "Running"),
        ([], [ended(0), runs()], "Running"),
        ([], [ended(0), ended(0)], "Succeeded"),
        ([], [ended(0), ended(137)], "Failed"),
    ],
)
def test_a_pods_phase_follows_its_containers(
    first: list[Container], containers: list[Container], expected: str
) -> None:
    assert phase(first, containers) == expected


def test_a_pod_is_ready_with_all_its_containers_and_keeps_the_time_since() -> None:
    before = status([], [runs(), runs(ready=False)], "10.0.0.7", {})
    conditions = {each["type"]: each for each in before["conditions"]}
    assert conditions["Ready"]["status"] == "False"
    assert conditions["Initialized"]["status"] == "True"
    old = "2020-01-01T00:00:00Z"
    for each in before["conditions"]:
        each["lastTransitionTime"] = old
    after = status([], [runs(), runs()], "10.0.0.7", before)
    since = {each["type"]: each["lastTransitionTime"] for each in after["conditions"]}
    assert since["Initialized"] == old
    assert since["Ready"] != old
