"""Both charts on a real API server: installed, upgraded, uninstalled; what their Role allows."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import control_plane
import httpx
import pytest
from charts import CHART, CRDS, IMAGES, helm, rendered
from control_plane import ControlPlane
from go_tools import missing, tool

from embedfleet_operator.crds import KINDS

REASON = control_plane.missing() or missing("helm", "kubectl")
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON or "everything is there")

NAMESPACES = ("system", "search", "ads")
PLURALS = [kind.plural for kind in KINDS]
OURS = "/apis/embedfleet.io/v1alpha1"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CATALOGUE: dict[str, Any] = {
    "fleets": {"search": {"spec": {"pools": [{"name": "cpu", "minNodes": 1}]}}},
    "embedders": {
        "docs": {"spec": {"model": {"size": "0.6B"}}},
        "code": {"spec": {"model": {"source": "embedded/embedder"}}},
    },
}


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane with the kinds installed, and namespaces that take restricted pods only."""
    enforced = {"pod-security.kubernetes.io/enforce": "restricted"}
    with (
        tempfile.TemporaryDirectory(prefix="ef-charts-") as folder,
        control_plane.control_plane(Path(folder)) as running,
    ):
        for name in NAMESPACES:
            metadata = {"name": name, "labels": enforced}
            manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
            running.apply(f"/api/v1/namespaces/{name}", manifest)
        done(helm("install", "kinds", CRDS, kubeconfig=running.kubeconfig()))
        with running.client() as client:
            for plural in PLURALS:
                address = f"{OURS}/{plural}"
                control_plane.wait(lambda at=address: client.get(at).is_success, plural)
        yield running


@pytest.fixture(scope="module")
def client(plane: ControlPlane) -> Iterator[httpx.Client]:
    with plane.client() as connected:
        yield connected


def done(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def release(plane: ControlPlane, command: str, values: dict[str, Any]) -> str:
    """Install or upgrade the operator's chart as `embedfleet` in `system`."""
    return done(
        helm(
            command, "embedfleet", CHART, "--namespace", "system",
            values={**IMAGES, **values}, kubeconfig=plane.kubeconfig(),
        )
    )  # fmt: skip


def kubectl(plane: ControlPlane, *arguments: str) -> str:
    own = [f"--kubeconfig={plane.kubeconfig()}", f"--cache-dir={plane.folder / 'kubectl'}"]
    command = [tool("kubectl"), *own, *arguments]
    return done(subprocess.run(command, capture_output=True, text=True, check=False, timeout=120))


@pytest.fixture
def uninstalled(plane: ControlPlane, client: httpx.Client) -> Iterator[None]:
    """Leave nothing of a release behind, nor of its resources."""
    yield
    helm("uninstall", "embedfleet", "--namespace", "system", kubeconfig=plane.kubeconfig())
    for namespace in NAMESPACES:
        for plural in PLURALS:
            client.delete(f"{OURS}/namespaces/{namespace}/{plural}")


def address(client: httpx.Client, manifest: dict[str, Any]) -> str:
    """Find where a manifest belongs, as the API server says; empty where it knows no such kind."""
    version = manifest["apiVersion"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    kinds = client.get(root)
    if not kinds.is_success:
        return ""
    (kind,) = (
        each
        for each in kinds.json()["resources"]
        if each["kind"] == manifest["kind"] and "/" not in each["name"]
    )
    metadata = manifest["metadata"]
    inside = f"/namespaces/{metadata['namespace']}" if kind["namespaced"] else ""
    return f"{root}{inside}/{kind['name']}/{metadata['name']}"


EVERYTHING = {
    "watchNamespaces": ["search", "ads"],
    "gateway": {"name": "public", "namespace": "gateways", "domain": "models.example"},
    "monitoring": {"enabled": True, "namespace": "monitoring"},
    "podLabels": {"team": "search"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "control", "operator": "Exists"}],
    **CATALOGUE,
}


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_every_object_is_accepted(
    plane: ControlPlane, client: httpx.Client, values: dict[str, Any]
) -> None:
    unknown = []
    for manifest in rendered(values):
        at = address(client, manifest)
        if at:
            plane.apply(at, manifest, dryRun="All")
        else:
            unknown.append(manifest["kind"])
    assert unknown == (["ServiceMonitor"] if values else [])


def test_the_operators_pod_is_let_into_a_restricted_namespace(plane: ControlPlane) -> None:
    (deployment,) = (each for each in rendered() if each["kind"] == "Deployment")
    pod = {"apiVersion": "v1", "kind": "Pod", **deployment["spec"]["template"]}
    pod["metadata"] = {"name": "operator", "namespace": "system"}
    at = "/api/v1/namespaces/system/pods/operator"
    plane.apply(at, pod, dryRun="All")
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(AssertionError, match="violates PodSecurity"):
        plane.apply(at, pod, dryRun="All")


def identities(client: httpx.Client) -> dict[str, str]:
    """Give the uid of every definition and of every resource of ours."""
    found = {}
    for at in (DEFINITIONS, *(f"{OURS}/{plural}" for plural in PLURALS)):
        for each in client.get(at).json()["items"]:
            metadata = each["metadata"]
            found[f"{at}/{metadata.get('namespace', '')}/{metadata['name']}"] = metadata["uid"]
    return found


def test_upgrade_and_uninstall_keep_every_resource(
    plane: ControlPlane, client: httpx.Client, uninstalled: None
) -> None:
    said = release(plane, "install", CATALOGUE)
    assert "The catalogue has 1 fleets, 2 embedders and 0 rerankers." in said
    said = kubectl(plane, "apply", "--namespace=search", f"--filename={CHART / 'examples'}")
    assert said.count(" created") == len(KINDS)
    before = identities(client)
    assert len(before) == len(KINDS) + 3 + len(KINDS)

    left_out = {**CATALOGUE, "embedders": {"docs": CATALOGUE["embedders"]["docs"]}}
    release(plane, "upgrade", {**left_out, "replicas": 3, "watchNamespaces": ["system", "search"]})
    assert identities(client) == before
    operator = "/apis/apps/v1/namespaces/system/deployments/embedfleet-operator"
    assert client.get(operator).json()["spec"]["replicas"] == 3
    role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system-embedfleet-operator"
    assert client.get(role).status_code == 404

    kubeconfig = plane.kubeconfig()
    done(helm("uninstall", "embedfleet", "--namespace", "system", kubeconfig=kubeconfig))
    assert client.get(operator).status_code == 404
    assert identities(client) == before

    done(helm("uninstall", "kinds", kubeconfig=kubeconfig))
    assert identities(client) == before
    # What was kept is taken over again.
    done(helm("install", "kinds", CRDS, "--take-ownership", kubeconfig=kubeconfig))
    assert identities(client) == before

    # What the chart's README says takes them down.
    said = kubectl(plane, "delete", "embedfleet", "--all", "--all-namespaces")
    assert said.count(" deleted") == 3 + len(KINDS)


def test_left_out_resources_go_where_that_is_wanted(
    plane: ControlPlane, client: httpx.Client, uninstalled: None
) -> None:
    release(plane, "install", {**CATALOGUE, "keepResources": False})
    release(plane, "upgrade", {"fleets": CATALOGUE["fleets"], "keepResources": False})
    assert client.get(f"{OURS}/embedders").json()["items"] == []
    assert len(client.get(f"{OURS}/fleets").json()["items"]) == 1


FULL = frozenset({"get", "list", "watch", "create", "patch", "delete"})
READ = frozenset({"get", "list", "watch"})
RIGHTS: dict[tuple[str, str], frozenset[str]] = {
    **{("embedfleet.io", plural): READ for plural in PLURALS},
    **{("embedfleet.io", plural): READ | {"patch"} for plural in ("fleets", "modelcaches")},
    **{("embedfleet.io", f"{plural}/status"): frozenset({"get", "patch"}) for plural in PLURALS},
    **{("embedfleet.io", f"{plural}/finalizers"): frozenset({"update"}) for plural in PLURALS},
    ("ray.io", "rayservices"): FULL,
    ("ray.io", "rayclusters"): READ | {"patch"},
    ("apps", "deployments"): FULL,
    ("", "services"): FULL,
    ("", "configmaps"): FULL,
    ("", "persistentvolumeclaims"): FULL,
    ("policy", "poddisruptionbudgets"): FULL,
    ("networking.k8s.io", "networkpolicies"): FULL,
    ("batch", "jobs"): FULL,
    ("monitoring.coreos.com", "podmonitors"): FULL,
    ("gateway.networking.k8s.io", "grpcroutes"): FULL,
    ("", "secrets"): frozenset({"get"}),
    ("", "pods"): READ,
    ("events.k8s.io", "events"): frozenset({"create", "patch"}),
}
"""What the operator needs in the namespaces that it watches."""

NAMED: dict[tuple[str, str, str], frozenset[str]] = {
    ("apiextensions.k8s.io", "customresourcedefinitions", name): frozenset({"get"})
    for name in (
        *(f"{plural}.embedfleet.io" for plural in PLURALS), "rayservices.ray.io",
        "podmonitors.monitoring.coreos.com", "grpcroutes.gateway.networking.k8s.io",
    )
}  # fmt: skip
LEASE = {
    ("coordination.k8s.io", "leases", "embedfleet-operator"): frozenset({"get", "update"}),
    ("coordination.k8s.io", "leases", ""): frozenset({"create"}),
}

Granted = dict[tuple[str, str, str], set[str]]


def granted(plane: ControlPlane, token: str, namespace: str) -> Granted:
    """Ask as a user what it may do in a namespace, by group, resource and name."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    with plane.client(token) as user:
        answer = user.post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", json=review)
    assert answer.is_success, answer.text
    assert not answer.json()["status"]["incomplete"]
    found: Granted = {}
    for rule in answer.json()["status"]["resourceRules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for name in rule.get("resourceNames") or [""]:
                    found.setdefault((group, resource, name), set()).update(rule["verbs"])
    # Everybody who is known to the API server may ask who they are.
    return {key: verbs for key, verbs in found.items() if not key[1].startswith("selfsubject")}


def needed(namespace: str, watched: tuple[str, ...]) -> Granted:
    found: Granted = {key: set(verbs) for key, verbs in NAMED.items()}
    if namespace in watched:
        found |= {(*key, ""): set(verbs) for key, verbs in RIGHTS.items()}
    if namespace == "system":
        found |= {key: set(verbs) for key, verbs in LEASE.items()}
    return found


@pytest.mark.parametrize(
    ("values", "watched"),
    [({}, NAMESPACES), ({"watchNamespaces": ["search", "ads"]}, ("search", "ads"))],
    ids=["everywhere", "listed"],
)
def test_the_account_may_do_what_the_operator_needs_and_nothing_else(
    plane: ControlPlane, uninstalled: None, values: dict[str, Any], watched: tuple[str, ...]
) -> None:
    release(plane, "install", values)
    token = plane.token("system", "embedfleet-operator")
    for namespace in (*NAMESPACES, "default"):
        everywhere = not values
        expected = needed(namespace, (*watched, "default") if everywhere else watched)
        assert granted(plane, token, namespace) == expected, namespace


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/v1/namespaces/search/secrets/x", True),
        ("GET", "/api/v1/namespaces/search/secrets", False),
        ("GET", "/api/v1/namespaces/other/secrets/x", False),
        ("GET", f"{OURS}/namespaces/search/fleets", True),
        ("GET", f"{OURS}/fleets", False),
        ("DELETE", f"{OURS}/namespaces/search/fleets/x", False),
        ("DELETE", "/api/v1/namespaces/search/pods/x", False),
        ("GET", "/apis/coordination.k8s.io/v1/namespaces/system/leases/embedfleet-operator", True),
        ("GET", "/apis/coordination.k8s.io/v1/namespaces/system/leases/another", False),
        ("GET", "/apis/coordination.k8s.io/v1/namespaces/search/leases/embedfleet-operator", False),
        ("GET", f"{DEFINITIONS}/rayservices.ray.io", True),
        ("GET", f"{DEFINITIONS}/others.example.com", False),
        ("GET", DEFINITIONS, False),
        ("GET", "/api/v1/nodes", False),
        ("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles", False),
    ],
)
def test_requests_end_at_the_role(
    plane: ControlPlane, listed: str, method: str, path: str, allowed: bool
) -> None:
    with plane.client(listed) as operator:
        status = operator.request(method, path).status_code
    assert status in ((200, 404) if allowed else (403,)), status


@pytest.fixture(scope="module")
def listed(plane: ControlPlane) -> Iterator[str]:
    """Token of an operator that watches one namespace."""
    release(plane, "install", {"watchNamespaces": ["search"]})
    yield plane.token("system", "embedfleet-operator")
    kubeconfig = plane.kubeconfig()
    done(helm("uninstall", "embedfleet", "--namespace", "system", kubeconfig=kubeconfig))
