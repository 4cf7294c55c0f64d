"""The node of the tests on its own: what pods see, how they start, fail, restart and end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import control_plane
import go_tools
import pytest
import yaml
from control_plane import wait
from e2e import memory, network
from e2e.cluster import Cluster, cluster
from e2e.memory import Memory
from operator_process import Kubectl

PROGRAMS = ("kubectl", "kube-controller-manager")
REASON = control_plane.missing() or go_tools.missing(*PROGRAMS) or network.missing()
pytestmark = [
    pytest.mark.skipif(bool(REASON), reason=REASON or "everything is there"),
    pytest.mark.timeout(300),
]

LAST_WORDS = {"terminationMessagePolicy": "FallbackToLogsOnError"}
SETTINGS = {
    "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"},
    "data": {"greeting": "hello", "port": "8000"},
}  # fmt: skip
SERVICE = {
    "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
    "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
}  # fmt: skip


def pod(name: str, script: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "none", "command": ["sh", "-c", script]}
    container |= spec.pop("container", {})
    spec = {"restartPolicy": "Never", "containers": [container], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


WEB = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "terminationGracePeriodSeconds": 2,
                "initContainers": [
                    {
                        "name": "first", "image": "none",
                        "command": ["cp", "/settings/greeting", "/data/index.html"],
                        "volumeMounts": [
                            {"name": "data", "mountPath": "/data"},
                            {"name": "settings", "mountPath": "/settings", "readOnly": True},
                        ],
                    }
                ],
                "containers": [
                    {
                        "name": "web", "image": "none", "workingDir": "/data",
                        "command": ["python", "-m", "http.server"], "args": ["$(PORT)"],
                        "env": [
                            {
                                "name": "PORT",
                                "valueFrom": {
                                    "configMapKeyRef": {"name": "settings", "key": "port"}
                                },
                            }
                        ],
                        "ports": [{"name": "http", "containerPort": 8000}],
                        "readinessProbe": {
                            "httpGet": {"path": "/index.html", "port": "http"}, "periodSeconds": 1,
                        },
                        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    }
                ],
                "volumes": [
                    {"name": "data", "emptyDir": {}},
                    {"name": "settings", "configMap": {"name": "settings"}},
                ],
            },
        },
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def world() -> Iterator[Cluster]:
    with cluster({}) as running:
        yield running


@pytest.fixture(scope="module")
def kubectl(world: Cluster) -> Kubectl:
    found = Kubectl(world.plane, "default")
    wait(lambda: bool(found.get("serviceaccount/default")), "the default account")
    return found


def create(kubectl: Kubectl, *manifests: dict[str, Any]) -> None:
    kubectl("apply", "--filename=-", given=yaml.safe_dump_all(manifests))


def ended(kubectl: Kubectl, name: str) -> dict[str, Any]:
    """Wait for a pod's end and give the last state of its container."""
    wait(lambda: kubectl.get(f"pod/{name}")["status"]["phase"] in ("Succeeded", "Failed"), name)
    (container,) = kubectl.get(f"pod/{name}")["status"]["containerStatuses"]
    state: dict[str, Any] = container["state"]["terminated"]
    return state


def test_a_service_leads_to_pods_that_are_ready(world: Cluster, kubectl: Kubectl) -> None:
    create(kubectl, WEB, SERVICE)
    # Its volume does not exist yet, so nothing starts.
    wait(lambda: "ConfigMap settings" in kubectl("get", "pods", "--output=yaml"), "the reason")
    create(kubectl, SETTINGS)
    kubectl("wait", "--for=condition=Available", "deployment/web", "--timeout=60s")
    asked = ["wget", "--quiet", "--output-document=-", "http://web.default.svc.cluster.local/"]
    create(kubectl, pod("client", f"until {' '.join(asked[:-1])} http://web/; do sleep 0.2; done"))
    assert ended(kubectl, "client")["exitCode"] == 0
    assert (world.folder / "logs" / "default_client_main.log").read_text() == "hello"
    told = subprocess.run(world.command(*asked), capture_output=True, text=True, check=True)
    assert told.stdout == "hello"
    kubectl("delete", "deployment/web", "--cascade=foreground", "--timeout=60s")
    assert subprocess.run(world.command(*asked, "--tries=1"), check=False).returncode != 0


def test_a_pod_has_its_own_processes_files_and_identity(world: Cluster, kubectl: Kubectl) -> None:
    script = (
        "echo $$$$ > /dev/termination-log; hostname >> /dev/termination-log; touch /own; ls /own;"
        "cat /var/run/secrets/kubernetes.io/serviceaccount/namespace >> /dev/termination-log"
    )
    create(kubectl, pod("alone", script))
    assert ended(kubectl, "alone")["message"].split() == ["1", "alone", "default"]
    assert not Path("/own").exists()


def test_what_fails_is_started_again_and_tells_its_last_words(kubectl: Kubectl) -> None:
    create(
        kubectl,
        pod("fails", "echo why; exit 3", container=LAST_WORDS),
        pod("again", "exit 4", restartPolicy="OnFailure"),
        pod("dies", "sleep 1000", restartPolicy="Always", container={
            "livenessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1},
        }, terminationGracePeriodSeconds=1),
    )  # fmt: skip
    state = ended(kubectl, "fails")
    assert (state["exitCode"], state["message"]) == (3, "why\n")

    def restarted(name: str) -> bool:
        return kubectl.get(f"pod/{name}")["status"]["containerStatuses"][0]["restartCount"] > 1

    wait(lambda: restarted("again"), "restarts")
    wait(lambda: restarted("dies"), "what does not live to be started again")
    kubectl("delete", "pod/again", "pod/dies", "--timeout=60s")


def test_a_pod_may_end_by_itself_before_it_is_killed(kubectl: Kubectl) -> None:
    script = (
        "trap 'sleep 1; echo bye > /claim/word; exit 0' TERM; touch /claim/up;"
        "while :; do sleep 0.1; done"
    )
    volume = {"volumes": [{"name": "claim", "persistentVolumeClaim": {"claimName": "kept"}}]}
    mount = {"container": {"volumeMounts": [{"name": "claim", "mountPath": "/claim"}]}}
    create(kubectl, pod("polite", script, **volume, **mount))
    create(kubectl, pod("sees", "until test -e /claim/up; do sleep 0.1; done", **volume, **mount))
    assert ended(kubectl, "sees")["exitCode"] == 0
    kubectl("delete", "pod/polite", "--timeout=60s")
    create(kubectl, pod("reads", "cat /claim/word > /dev/termination-log", **volume, **mount))
    assert ended(kubectl, "reads")["message"] == "bye\n"


@pytest.mark.skipif(bool(memory.missing()), reason=memory.missing() or "it can be counted")
def test_a_pods_memory_can_be_limited(world: Cluster, kubectl: Kubectl) -> None:
    create(kubectl, pod("modest", "sleep 1000"))
    kubectl("wait", "--for=condition=Ready", "pod/modest", "--timeout=60s")
    address = kubectl.get("pod/modest")["status"]["podIP"]
    group = Memory(world.network.at(address).name)
    group.limit(32 << 20)
    eater = [sys.executable, Path(__file__).with_name("eater.py"), group.members]
    assert subprocess.run(eater, check=False, timeout=60).returncode == -signal.SIGKILL
    assert kubectl.get("pod/modest")["status"]["phase"] == "Running"
    kubectl("delete", "pod/modest", "--grace-period=0", "--force", "--timeout=60s")
    wait(lambda: not group.members.exists(), "the group to be gone with its pod")


def test_nothing_outlives_a_killed_test(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, time\n"
        "from e2e.network import bridge\n"
        "with bridge() as made:\n"
        "    made.join(1)\n"
        "    print('up', flush=True)\n"
        "    time.sleep(100)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[1], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    listed = ["ip", "-o", "link"]
    assert f"ef{process.pid}b" in subprocess.check_output(listed, text=True)
    network.sweep()
    assert f"ef{process.pid}" not in subprocess.check_output(listed, text=True)
    assert f"ef{process.pid}" not in subprocess.check_output(["ip", "netns"], text=True)
