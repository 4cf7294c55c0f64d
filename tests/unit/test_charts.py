"""The operator's chart: what it renders, whom it trusts with what, and which values it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import CHART, CRDS, IMAGES, helm, rendered, template
from go_tools import missing

from embedfleet.resources import load_manifests, parse_manifests
from embedfleet_operator.docs import values_table, written

ROOT = CHART.parents[1]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
needs_helm = pytest.mark.skipif(bool(missing("helm")), reason=missing("helm") or "it is there")

CATALOGUE = {
    "fleets": {"search": {"spec": {"pools": [{"name": "cpu", "minNodes": 1}]}}},
    "embedders": {"docs": {"labels": {"team": "a"}, "spec": {"model": {"size": "0.6B"}}}},
    "rerankers": {"rel": {"spec": {"model": {"source": "embedded/reranker"}}}},
    "modelRoutes": {
        "all": {
            "spec": {
                "targetKind": "Embedder",
                "rules": [{"name": "all", "targets": [{"model": "docs"}]}],
            }
        }
    },
    "modelCaches": {"files": {"spec": {"source": {"hub": {"name": "a/b"}}, "revision": COMMIT}}},
}
EVERYTHING = {
    "watchNamespaces": ["search", "ads"],
    "gateway": {"name": "public", "namespace": "gateways", "domain": "models.example"},
    "kuberay": {"namespace": "kuberay"},
    "monitoring": {"enabled": True, "namespace": "monitoring", "labels": {"release": "prometheus"}},
    "imagePullSecrets": [{"name": "registry"}],
    "priorityClassName": "system-cluster-critical",
    "podLabels": {"team": "search"},
    "podAnnotations": {"sidecar.istio.io/inject": "false"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "control", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "serviceAccount": {"name": "fleets", "annotations": {"a": "b"}},
    "tests": {"endpoint": "search.search:9000"},
    **CATALOGUE,
}
TABLE = {
    "defaults": {},
    "everything": EVERYTHING,
    "alone": {"replicas": 1, "networkPolicy": {"enabled": False}},
    "catalogue": CATALOGUE,
}
every_table = pytest.mark.parametrize("values", TABLE.values(), ids=list(TABLE))


def of_kind(manifests: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [each for each in manifests if each["kind"] == kind]


def only(manifests: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = of_kind(manifests, kind)
    return found


def pods(manifests: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for each in manifests:
        if each["kind"] == "Deployment":
            yield each["spec"]["template"]["spec"]
        elif each["kind"] == "Pod":
            yield each["spec"]


def test_documents_say_what_the_code_says() -> None:
    stale = {path for path, text in written(ROOT).items() if (ROOT / path).read_text() != text}
    assert stale == set(), "run make docs"


def test_a_value_without_a_comment_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a\.b has no comment"):
        values_table("a:\n  # -- First.\n  c: 1\n  # Not for readers.\n  b: 2\n")


def test_a_comment_on_a_mapping_speaks_for_all_of_it() -> None:
    table = values_table("# -- All of\n# it.\na:\n  b: 1\n# -- More.\nc: x\n").splitlines()
    assert table[2:] == ['| `a` | `{"b": 1}` | All of it. |', '| `c` | `"x"` | More. |']


def test_the_schema_knows_the_values_and_no_others() -> None:
    def strict(schema: dict[str, Any], values: dict[str, Any], path: str) -> None:
        assert schema["additionalProperties"] is False, path
        assert set(schema["properties"]) - {"global"} == set(values), path
        for name, value in values.items():
            below = schema["properties"][name]
            if isinstance(value, dict) and value and "properties" in below:
                strict(below, value, f"{path}.{name}")

    schema = json.loads((CHART / "values.schema.json").read_text())
    strict(schema, yaml.safe_load((CHART / "values.yaml").read_text()), "values")


def test_examples_are_one_of_each_kind_and_right_together() -> None:
    found = load_manifests([CHART / "examples"])
    kinds = [each.kind for each in found.resources()]
    assert kinds == ["Fleet", "Embedder", "Reranker", "ModelRoute", "ModelCache"]
    assert {path.stem for path in (CHART / "examples").iterdir()} == {k.lower() for k in kinds}


def test_both_charts_have_the_projects_version() -> None:
    charts = [yaml.safe_load((chart / "Chart.yaml").read_text()) for chart in (CHART, CRDS)]
    assert charts[0]["version"] == charts[1]["version"]
    assert {each["appVersion"] for each in charts} == {"0.1.0"}


@needs_helm
@pytest.mark.parametrize("chart", [CHART, CRDS], ids=lambda chart: chart.name)
def test_the_linter_finds_nothing(chart: Path) -> None:
    done = helm("lint", chart, "--strict", values=IMAGES if chart is CHART else {})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


@needs_helm
@every_table
def test_no_rule_has_a_wildcard_and_secrets_are_never_listed(values: dict[str, Any]) -> None:
    manifests = rendered(values)
    rules = [
        rule
        for kind in ("Role", "ClusterRole")
        for role in of_kind(manifests, kind)
        for rule in role["rules"]
    ]
    assert rules
    for rule in rules:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], rule
        if "secrets" in rule["resources"]:
            assert rule["verbs"] == ["get"]


@needs_helm
def test_listed_namespaces_each_get_a_role_and_nothing_elsewhere() -> None:
    manifests = rendered({"watchNamespaces": ["search", "ads"]}, namespace="system")
    roles = {
        (each["metadata"]["namespace"], each["metadata"]["name"]): each["rules"]
        for each in of_kind(manifests, "Role")
    }
    assert sorted(roles) == [
        ("ads", "system-embedfleet-operator"),
        ("search", "system-embedfleet-operator"),
        ("system", "embedfleet-operator-lease"),
    ]
    assert [each["metadata"]["name"] for each in of_kind(manifests, "ClusterRole")] == [
        "system-embedfleet-operator-definitions"
    ]
    everywhere = {r["metadata"]["name"]: r["rules"] for r in of_kind(rendered(), "ClusterRole")}
    assert roles["ads", "system-embedfleet-operator"] == everywhere["system-embedfleet-operator"]


@needs_helm
@every_table
def test_every_role_is_bound_to_the_operators_account_alone(values: dict[str, Any]) -> None:
    manifests = rendered(values)
    account = only(manifests, "ServiceAccount")["metadata"]
    assert next(pods(manifests))["serviceAccountName"] == account["name"]
    for kind in ("Role", "ClusterRole"):
        bound = set()
        for each in of_kind(manifests, f"{kind}Binding"):
            (subject,) = each["subjects"]
            assert subject == {
                "kind": "ServiceAccount", "name": account["name"],
                "namespace": account["namespace"],
            }  # fmt: skip
            assert each["roleRef"]["kind"] == kind
            bound.add((each["metadata"].get("namespace"), each["roleRef"]["name"]))
        roles = [each["metadata"] for each in of_kind(manifests, kind)]
        assert bound == {(each.get("namespace"), each["name"]) for each in roles}


@needs_helm
@every_table
def test_every_pod_meets_the_restricted_standard(values: dict[str, Any]) -> None:
    found = list(pods(rendered(values)))
    assert len(found) == 2
    for pod in found:
        assert pod["securityContext"] == {
            "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"},
        }  # fmt: skip
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert all(set(each) <= {"name", "emptyDir"} for each in pod.get("volumes", []))
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }  # fmt: skip
            assert {"requests", "limits"} <= container["resources"].keys()


@needs_helm
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {},
            ["--lease-name=embedfleet-operator", "--image=registry.example/fleet:0.1.0",
             "--cluster-domain=cluster.local", "--resync-seconds=300", "--log-level=info"],
        ),
        (
            {**EVERYTHING, "logLevel": "debug", "resyncSeconds": 60, "clusterDomain": "corp.local",
             "fleetImage": {"repository": "r.example/f", "digest": f"sha256:{'a' * 64}"}},
            ["--namespaces=search,ads", "--lease-name=embedfleet-operator",
             f"--image=r.example/f@sha256:{'a' * 64}", "--cluster-domain=corp.local",
             "--gateway=gateways/public", "--gateway-domain=models.example",
             "--monitoring-namespace=monitoring", "--kuberay-namespace=kuberay",
             "--resync-seconds=60", "--log-level=debug"],
        ),
    ],
    ids=["defaults", "everything"],
)  # fmt: skip
def test_the_operator_is_started_with_what_the_values_say(
    values: dict[str, Any], expected: list[str]
) -> None:
    (container,) = next(pods(rendered(values)))["containers"]
    assert container["args"] == expected
    assert [each["name"] for each in container["env"]] == ["POD_NAME", "POD_NAMESPACE"]


@needs_helm
def test_probes_ports_and_policy_name_the_same_two_ports() -> None:
    manifests = rendered(EVERYTHING)
    (container,) = next(pods(manifests))["containers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert ports == {"metrics": 8080, "health": 8081}
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("liveness", "readiness")}
    assert probes == {
        "liveness": {"path": "/healthz", "port": "health"},
        "readiness": {"path": "/readyz", "port": "health"},
    }
    service = only(manifests, "Service")["spec"]["ports"]
    assert {each["targetPort"]: each["port"] for each in service} == ports
    policy = only(manifests, "NetworkPolicy")["spec"]["ingress"]
    assert [each["ports"][0]["port"] for each in policy] == ["health", "metrics"]
    (metrics,) = policy[1]["from"]
    assert metrics["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "monitoring"
    }
    monitor = only(manifests, "ServiceMonitor")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["endpoints"] == [
        {"port": "metrics", "path": "/metrics", "interval": "30s"}
    ]


@needs_helm
@pytest.mark.parametrize(
    ("values", "absent"),
    [
        ({}, {"ServiceMonitor"}),
        ({"replicas": 1}, {"ServiceMonitor", "PodDisruptionBudget"}),  # it would block every drain
        ({"podDisruptionBudget": {"enabled": False}}, {"ServiceMonitor", "PodDisruptionBudget"}),
        ({"networkPolicy": {"enabled": False}}, {"ServiceMonitor", "NetworkPolicy"}),
        ({"monitoring": {"enabled": True}}, set()),
    ],
)
def test_what_is_not_asked_for_is_not_there(values: dict[str, Any], absent: set[str]) -> None:
    optional = {"ServiceMonitor", "PodDisruptionBudget", "NetworkPolicy"}
    assert optional - {each["kind"] for each in rendered(values)} == absent


@needs_helm
def test_broken_pods_of_the_operator_block_no_drain() -> None:
    budget = only(rendered({}), "PodDisruptionBudget")
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@needs_helm
def test_releases_of_one_name_share_nothing() -> None:
    def names(namespace: str) -> set[tuple[str, str, str]]:
        manifests = rendered({"watchNamespaces": ["search"]}, namespace=namespace)
        return {
            (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"])
            for each in manifests
        }

    assert names("one") & names("two") == set()


@needs_helm
@every_table
def test_the_catalogue_is_what_manifests_may_be(values: dict[str, Any]) -> None:
    ours = [each for each in rendered(values) if each["apiVersion"].startswith("embedfleet.io/")]
    given = {name for names in CATALOGUE for name in values.get(names, {})}
    assert {each["metadata"]["name"] for each in ours} == given
    if not ours:
        return
    parse_manifests(yaml.safe_dump_all(ours))
    home = values.get("watchNamespaces", ["system"])[0]
    assert {each["metadata"]["namespace"] for each in ours} == {home}
    assert all(
        each["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for each in ours
    )


@needs_helm
def test_resources_go_down_with_their_release_only_where_that_is_wanted() -> None:
    ours = of_kind(rendered({**CATALOGUE, "keepResources": False}), "Embedder")
    assert "annotations" not in ours[0]["metadata"]
    assert ours[0]["metadata"]["labels"]["team"] == "a"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"replica": 3}, "at '': additional properties 'replica' not allowed"),
    ({"image": {"tagg": "1"}}, "at '/image': additional properties 'tagg' not allowed"),
    ({"replicas": 0}, "at '/replicas': minimum: got 0, want 1"),
    ({"replicas": "2"}, "at '/replicas': got string, want integer"),
    ({"watchNamespaces": ["A"]}, "at '/watchNamespaces/0'"),
    ({"logLevel": "verbose"}, "at '/logLevel'"),
    ({"embedders": {"docs": {}}}, "at '/embedders/docs': missing property 'spec'"),
    (
        {"embedders": {"docs": {"spec": {"model": {"size": "0.6B"}, "dimesion": 64}}}},
        "at '/embedders/docs/spec': additional properties 'dimesion' not allowed",
    ),
    (
        {"embedders": {"docs": {"spec": {"model": {"size": "0.6B"}, "dimension": 7}}}},
        "at '/embedders/docs/spec/dimension': minimum: got 7, want 32",
    ),
    (
        {"fleets": {"a": {"spec": {"pools": [{"name": "cpu", "minNode": 1}]}}}},
        "at '/fleets/a/spec/pools/0': additional properties 'minNode' not allowed",
    ),
    ({"fleets": {"Search": {}}}, "at '/fleets': additional properties 'Search' not allowed"),
    ({"image": {"repository": ""}}, "image.repository is empty: no registry holds this image."),
    ({"fleetImage": {}}, "fleetImage.repository is empty: no registry holds this image."),
    ({"gateway": {"name": "public"}}, "gateway.namespace is empty"),
    (
        {"watchNamespaces": ["a"], "fleets": {"x": {"namespace": "b"}}},
        "namespace of Fleet/x is b: the operator watches only a.",
    ),
]


@needs_helm
@pytest.mark.parametrize(("values", "message"), REFUSED)
def test_a_slip_is_refused_by_the_field_it_is_in(values: dict[str, Any], message: str) -> None:
    done = template({**IMAGES, **values})
    assert done.returncode != 0
    assert message in done.stderr
