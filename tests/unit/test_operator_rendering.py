"""Fleets into manifests for Kubernetes: golden files, and what must hold in each of them."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from certificates import pem, signed
from operator_cases import (
    BUILT,
    CASES,
    EVERYTHING,
    GOLDEN,
    TARGET,
    given,
    only,
    render_all,
    rendered,
)

from embedfleet.errors import InvalidManifest
from embedfleet.golden import Golden
from embedfleet.rendering.edge import (
    CERTIFICATE_FILE,
    CLIENT_CA_FILE,
    PRIVATE_KEY_FILE,
)
from embedfleet.rendering.flags import SERVE_FLAGS
from embedfleet.rendering.names import application
from embedfleet.rendering.serve import render_serve
from embedfleet.resources import parse_manifests
from embedfleet_operator.rendering import Manifest, Target, render, to_yaml

HEAD = "apiVersion: embedfleet.io/v1alpha1\nkind: Fleet\n"


@pytest.mark.parametrize("case", CASES)
def test_manifests_are_those_that_were_reviewed(case: str, request: pytest.FixtureRequest) -> None:
    path = GOLDEN / case / "manifests.yaml"
    text = to_yaml(rendered(case))
    if request.config.getoption("--rewrite-golden"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("case", CASES)
def test_text_reads_back_as_the_same_values(case: str) -> None:
    assert tuple(yaml.safe_load_all(to_yaml(rendered(case)))) == rendered(case)


@pytest.mark.parametrize("case", CASES)
def test_order_of_documents_does_not_matter(case: str) -> None:
    documents = (GOLDEN / case / "fleet.yaml").read_text().split("---\n")
    texts = {
        to_yaml(render_all(parse_manifests("---\n".join(order)), EVERYTHING))
        for turned in range(len(documents))
        for order in (
            documents[turned:] + documents[:turned],
            documents[turned::-1] + documents[:turned:-1],
        )
    }
    assert len(texts) == 1


@pytest.mark.parametrize("case", BUILT)
def test_serve_config_is_that_of_the_laptop(case: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, at import
        from ray.serve.schema import ServeDeploySchema
    text = only(rendered(case), "RayService")["spec"]["serveConfigV2"]
    config = yaml.safe_load(text)
    manifests = given(case)
    assert config == render_serve(manifests.only_fleet(), manifests.models)
    read = ServeDeploySchema.model_validate(config)
    assert read.model_dump(mode="json", exclude_unset=True) == config


def test_golden_outputs_move_serves_configuration_only() -> None:
    manifests = given("cpu-only")
    name = application(manifests.models[0])
    row = np.ones(1, np.float32)
    golden = Golden.of(manifests.models[0].spec.role, f"v1:{'a' * 32}", "Find", {0: row})
    before = render(manifests.only_fleet(), manifests.models, TARGET)
    after = render(manifests.only_fleet(), manifests.models, TARGET, goldens={name: golden})
    spec, other = (only(each, "RayService")["spec"] for each in (before, after))
    assert golden.contract_hash in other["serveConfigV2"]
    assert {**spec, "serveConfigV2": ""} == {**other, "serveConfigV2": ""}
    assert [m for m in before if m["kind"] != "RayService"] == [
        m for m in after if m["kind"] != "RayService"
    ]


@pytest.mark.parametrize("case", CASES)
def test_edge_container_takes_its_files(case: str, tmp_path: Path) -> None:
    manifests = rendered(case)
    pod = only(manifests, "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    files = {**only(manifests, "ConfigMap")["data"], **secret_files()}
    mounted = mounted_files(pod, files)
    for name, content in mounted.items():
        (tmp_path / name).write_bytes(content)
    start = [sys.executable if part == "python" else part for part in container["command"]]
    folder = container["volumeMounts"][0]["mountPath"]
    arguments = [part.replace(folder, str(tmp_path)) for part in container["args"]]
    checked = subprocess.run(
        [*start, "-c", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stderr


def secret_files() -> dict[str, bytes]:
    certificate, key = pem(signed("server"))
    return {"tls.crt": certificate, "tls.key": key, "ca.crt": certificate}


def mounted_files(pod: dict[str, Any], files: dict[str, Any]) -> dict[str, bytes]:
    """Lay a projected volume out as the kubelet does."""
    (volume,) = (each for each in pod["volumes"] if each["name"] == "config")
    found: dict[str, bytes] = {}
    for source in volume["projected"]["sources"]:
        if "configMap" in source:
            found |= {k: v.encode() for k, v in files.items() if isinstance(v, str)}
        else:
            found |= {item["path"]: files[item["key"]] for item in source["secret"]["items"]}
    return found


def test_secrets_become_the_files_that_haproxy_names() -> None:
    pod = only(rendered("tls"), "Deployment")["spec"]["template"]["spec"]
    sources = pod["volumes"][0]["projected"]["sources"][1:]
    assert [(each["secret"]["name"], each["secret"]["items"]) for each in sources] == [
        (
            "search-tls",
            [
                {"key": "tls.crt", "path": CERTIFICATE_FILE},
                {"key": "tls.key", "path": PRIVATE_KEY_FILE},
            ],
        ),
        ("search-clients", [{"key": "ca.crt", "path": CLIENT_CA_FILE}]),
    ]


def pod_specs(manifests: tuple[Manifest, ...]) -> Iterator[dict[str, Any]]:
    cluster = only(manifests, "RayService")["spec"]["rayClusterConfig"]
    yield only(manifests, "Deployment")["spec"]["template"]["spec"]
    yield cluster["headGroupSpec"]["template"]["spec"]
    for group in cluster["workerGroupSpecs"]:
        yield group["template"]["spec"]


@pytest.mark.parametrize("case", BUILT)
def test_pods_meet_the_restricted_standard(case: str) -> None:
    manifests = rendered(case)
    cluster = only(manifests, "RayService")["spec"]["rayClusterConfig"]
    contexts = [cluster["autoscalerOptions"]["securityContext"]]
    for spec in pod_specs(manifests):
        # https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        kinds = {kind for volume in spec["volumes"] for kind in volume.keys() - {"name"}}
        assert kinds <= {"emptyDir", "persistentVolumeClaim", "projected"}
        contexts += [container["securityContext"] for container in spec["containers"]]
    for context in contexts:
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("case", BUILT)
def test_what_kuberay_or_serve_would_otherwise_get_wrong(case: str) -> None:
    service = only(rendered(case), "RayService")
    cluster = service["spec"]["rayClusterConfig"]
    head = cluster["headGroupSpec"]
    assert len(service["metadata"]["name"]) <= 47
    assert head["rayStartParams"]["num-cpus"] == "0", "replicas would run beside the GCS"
    names = {each["name"] for each in head["template"]["spec"]["containers"][0]["ports"]}
    assert {"serve", "serve-grpc", "gcs", "dashboard", "client", "metrics"} <= names
    served = {name for name in names if re.match(r"serve(-|$)", name)}
    assert served == {"serve", "serve-grpc"}, "KubeRay puts every such port into its Service"
    assert "excludeHeadPodFromServeSvc" not in service["spec"], "nothing would wake up from zero"
    for template in (head["template"], *(g["template"] for g in cluster["workerGroupSpecs"])):
        (container,) = template["spec"]["containers"]
        environment = {each["name"]: each["value"] for each in container["env"]}
        assert SERVE_FLAGS.items() <= environment.items()
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
        assert template["spec"]["restartPolicy"] == "Never", "the autoscaler asks for it"
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["maxReplicas"] < 2**31 - 1


@pytest.mark.parametrize("case", BUILT)
def test_pods_are_found_by_everything_that_selects_them(case: str) -> None:
    manifests = rendered(case)
    deployment = only(manifests, "Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == labels
    assert only(manifests, "Service")["spec"]["selector"] == labels
    assert only(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    selected = [
        each["spec"]["podSelector"]["matchLabels"]
        for each in manifests
        if each["kind"] == "NetworkPolicy"
    ]
    cluster = only(manifests, "RayService")["spec"]["rayClusterConfig"]
    head = cluster["headGroupSpec"]["template"]["metadata"]["labels"]
    assert selected == [labels, head]
    for group in cluster["workerGroupSpecs"]:
        assert group["template"]["metadata"]["labels"] == head


@pytest.mark.parametrize("case", CASES)
def test_broken_pods_of_the_edge_block_no_drain(case: str) -> None:
    budget = only(rendered(case), "PodDisruptionBudget")["spec"]
    # https://kubernetes.io/docs/tasks/run-application/configure-pdb/#unhealthy-pod-eviction-policy
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def fleet(spec: str, name: str = "f") -> str:
    return f"{HEAD}metadata: {{name: {name}, namespace: n}}\nspec: {{{spec}}}\n"


def test_a_change_of_the_edge_rolls_its_pods_and_nothing_else_does() -> None:
    def checksum(text: str, target: Target = TARGET) -> str:
        deployment = only(render_all(parse_manifests(text), target), "Deployment")
        return str(deployment["spec"]["template"]["metadata"]["annotations"])

    pools = "pools: [{name: a}]"
    model = (
        "---\napiVersion: embedfleet.io/v1alpha1\nkind: Embedder\n"
        "metadata: {name: e, namespace: n}\nspec: {model: {source: embedded/embedder}}\n"
    )
    before = checksum(fleet(pools))
    assert checksum(fleet("pools: [{name: a, maxNodes: 9}]")) == before
    assert checksum(fleet(f"{pools}, head: {{cpus: 7}}")) == before
    assert checksum(fleet(f"{pools}, grpc: {{port: 443}}")) == before, "its Service changes"
    assert checksum(fleet(f"{pools}, grpc: {{maxMessageBytes: 65536}}")) != before
    assert checksum(fleet(pools) + model) != before
    renewed = replace(TARGET, certificates_digest="renewed")
    assert checksum(fleet(pools), renewed) != before


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ("cpusPerNode: 2", {"cpu": "2", "memory": "16Gi"}),
        ("cpusPerNode: 1000", {"cpu": "1k", "memory": "16Gi"}),
        ("memoryGibPerNode: 2048", {"cpu": "4", "memory": "2Ti"}),
        ("memoryGibPerNode: 1536", {"cpu": "4", "memory": "1536Gi"}),
        (
            "accelerator: X, gpusPerNode: 2",
            {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "2"},
        ),
    ],
    ids=["cpus", "cpus-canonical", "memory-canonical", "memory-odd", "gpus"],
)
def test_quantities_are_written_as_kubernetes_writes_them_back(
    pool: str, expected: dict[str, str]
) -> None:
    manifests = render_all(parse_manifests(fleet(f"pools: [{{name: a, {pool}}}]")))
    (group,) = only(manifests, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    resources = group["template"]["spec"]["containers"][0]["resources"]
    assert resources == {"limits": expected, "requests": expected}


@pytest.mark.parametrize(
    ("pool", "selector"),
    [
        ("", None),
        ("nodeSelector: {a: b}", {"a": "b"}),
        ("accelerator: X, gpusPerNode: 1", {"nvidia.com/gpu.product": "X"}),
        ("accelerator: X, gpusPerNode: 1, nodeSelector: {a: b}", {"a": "b"}),
    ],
    ids=["any-node", "as-told", "by-product", "told-wins"],
)
def test_nodes_of_a_pool(pool: str, selector: dict[str, str] | None) -> None:
    manifests = render_all(parse_manifests(fleet(f"pools: [{{name: a, {pool}}}]")))
    (group,) = only(manifests, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert group["template"]["spec"].get("nodeSelector") == selector


def test_every_pod_pulls_with_the_secrets_that_are_named() -> None:
    spec = "pools: [{name: a}], imagePullSecrets: [one.example, two]"
    plain = render_all(parse_manifests(fleet("pools: [{name: a}]")))
    pods = list(pod_specs(render_all(parse_manifests(fleet(spec)))))
    secrets = {"imagePullSecrets": [{"name": "one.example"}, {"name": "two"}]}
    assert pods == [pod | secrets for pod in pod_specs(plain)], "edge, head and workers"


def test_only_the_head_keeps_the_account_that_kuberay_makes_for_it() -> None:
    """It has the autoscaler's rights; KubeRay makes none where one is named."""
    spec = "pools: [{name: a}, {name: b}], serviceAccountName: reader"
    edge, head, *workers = pod_specs(render_all(parse_manifests(fleet(spec))))
    assert "serviceAccountName" not in head
    for pod in (edge, *workers):
        assert pod["serviceAccountName"] == "reader"
        assert pod["automountServiceAccountToken"] is False, "nobody there calls the API server"


def test_an_edge_before_a_cluster_that_runs_is_pulled_likewise() -> None:
    existing = "existingCluster: {dashboard: 'http://ray:8265', serveHost: ray}"
    spec = f"{existing}, imagePullSecrets: [one], serviceAccountName: reader"
    pod = only(render_all(parse_manifests(fleet(spec))), "Deployment")["spec"]["template"]["spec"]
    assert pod["imagePullSecrets"] == [{"name": "one"}]
    assert pod["serviceAccountName"] == "reader"


@pytest.mark.parametrize(
    ("spec", "field", "remedy"),
    [
        ("", "spec.pools", "Add one"),
        (
            "pools: [{name: a}], tls: {certificateFile: /a, privateKeyFile: /b}",
            "spec.tls.certificateFile",
            "spec.tls.secretName",
        ),
    ],
    ids=["no-pools", "files-of-a-laptop"],
)
def test_laptop_only_fleets_are_refused(spec: str, field: str, remedy: str) -> None:
    with pytest.raises(InvalidManifest, match=re.escape(remedy)) as raised:
        render_all(parse_manifests(fleet(spec)))
    assert raised.value.field == field


def test_kinds_that_are_not_installed_are_left_out() -> None:
    manifests = parse_manifests(fleet("pools: [{name: a}]"))
    plain = {each["kind"] for each in render_all(manifests, TARGET)}
    everything = {each["kind"] for each in render_all(manifests, EVERYTHING)}
    assert everything - plain == {"GRPCRoute", "PodMonitor"}
