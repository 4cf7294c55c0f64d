"""A real control plane for tests: etcd and kube-apiserver on free ports, stopped by their handles.

Nothing runs pods. Kubernetes' own controllers run where a test asks for them: garbage collection,
Deployments' status and Services' endpoints are theirs.
"""

from __future__ import annotations

import hashlib
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import go_tools
import httpx
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from go_tools import tool

from embedfleet.local.ports import free_ports

__all__ = [
    "APPLY",
    "Address",
    "ControlPlane",
    "control_plane",
    "controllers",
    "missing",
    "process",
    "wait",
]

_STOP_SECONDS: Final = 5
"""An API server with open watches never ends by itself; it keeps nothing that could be lost."""
READY_SECONDS: Final = 120
"""A machine that builds something else meanwhile needs most of it; an idle one needs 5."""

ADMIN: Final = "admin-token"
PROGRAMS: Final = ("etcd", "kube-apiserver")
APPLY: Final = {"Content-Type": "application/apply-patch+yaml"}
"""Server-side apply; JSON is YAML."""


@dataclass(frozen=True)
class ControlPlane:
    """A running API server.

    Attributes:
        url: Its address.
        folder: Data, logs and certificates.
        stop: Ends the API server and leaves its data.
        start: Starts it again at the same address, and waits until it answers.
        kill_store: Kills etcd; what it has written stays.
        start_store: Starts it again, and waits until the API server is ready with it.
    """

    url: str
    folder: Path
    stop: Callable[[], None]
    start: Callable[[], None]
    kill_store: Callable[[], None]
    start_store: Callable[[], None]

    def client(self, token: str = ADMIN) -> httpx.Client:
        """Open connections as the owner of a token; may do everything by default."""
        context = ssl.create_default_context(cafile=self.folder / "certs" / "apiserver.crt")
        return httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}"},
            verify=context,
            timeout=60,
        )

    def kubeconfig(self, token: str = ADMIN) -> Path:
        """Write what kubectl, helm and operators read."""
        # Tokens of ServiceAccounts are longer than a file's name may be.
        path = self.folder / f"kubeconfig-{hashlib.sha256(token.encode()).hexdigest()[:16]}"
        cluster = {
            "server": self.url,
            "certificate-authority": str(self.folder / "certs" / "apiserver.crt"),
        }
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "test", "cluster": cluster}],
                    "users": [{"name": "test", "user": {"token": token}}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                    "current-context": "test",
                }
            )
        )
        return path

    def install(self, definitions: Sequence[Mapping[str, Any]]) -> None:
        """Apply definitions and wait until the API server serves them all."""
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        with self.client() as client:
            for each in definitions:
                self.apply(f"{path}/{each['metadata']['name']}", each)
            for each in definitions:
                name = each["metadata"]["name"]
                wait(lambda name=name: _established(client, f"{path}/{name}"), f"{name} to serve")

    def apply(self, address: str, manifest: Mapping[str, Any], **query: str) -> dict[str, Any]:
        """Apply a manifest server-side, unknown fields refused, and give what is stored."""
        query = {"fieldManager": "tests", "force": "true", "fieldValidation": "Strict", **query}
        with self.client() as client:
            response = client.patch(address, json=manifest, headers=APPLY, params=query)
        assert response.is_success, response.text
        found: dict[str, Any] = response.json()
        return found

    def token(self, namespace: str, account: str) -> str:
        """Issue a token of a ServiceAccount, with exactly the rights that were bound to it."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        with self.client() as client:
            response = client.post(path, json=request)
        assert response.is_success, response.text
        found: str = response.json()["status"]["token"]
        return found


def missing() -> str:
    """Say why no control plane can be started here; empty where one can."""
    return go_tools.missing(*PROGRAMS)


@dataclass(frozen=True)
class Address:
    """Where an API server listens and which addresses it gives to Services.

    Attributes:
        port: 0 takes a free one.
    """

    host: str = "127.0.0.1"
    port: int = 0
    services: str = "10.0.0.0/24"


@contextmanager
def control_plane(
    folder: Path, users: Sequence[str] = (), address: Address = Address()
) -> Iterator[ControlPlane]:
    """Start etcd and kube-apiserver, and stop both.

    Args:
        folder: Empty folder for data, logs and certificates.
        users: More users, each with the token `NAME-token` and no rights but those given to it.
        address: Where it listens.
    """
    etcd, peer, free = free_ports(3)
    port = address.port or free
    _write_secrets(folder, users)
    stores, peers = f"http://127.0.0.1:{etcd}", f"http://127.0.0.1:{peer}"
    store = (
        "etcd", f"--data-dir={folder / 'etcd'}", "--unsafe-no-fsync",
        f"--listen-client-urls={stores}", f"--advertise-client-urls={stores}",
        f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
    )  # fmt: skip
    api = (
        "kube-apiserver",
        f"--etcd-servers={stores}", f"--secure-port={port}", f"--bind-address={address.host}",
        f"--cert-dir={folder / 'certs'}", "--authorization-mode=RBAC",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'sa.key'}",
        f"--service-account-signing-key-file={folder / 'sa.key'}",
        f"--service-cluster-ip-range={address.services}",
        "--disable-admission-plugins=ServiceAccount",
    )  # fmt: skip
    with ExitStack() as etcd_runs, ExitStack() as api_runs:
        running: dict[str, subprocess.Popen[bytes]] = {}

        def start(runs: ExitStack, command: tuple[str, ...]) -> None:
            running[command[0]] = runs.enter_context(process(folder, *command))

        def ready() -> None:
            wait(lambda: _answers(plane, running["kube-apiserver"]), "the API server")

        def start_api() -> None:
            start(api_runs, api)
            ready()

        def kill_store() -> None:
            running["etcd"].kill()
            etcd_runs.close()

        def start_store() -> None:
            start(etcd_runs, store)
            ready()

        plane = ControlPlane(
            f"https://{address.host}:{port}", folder, api_runs.close, start_api,
            kill_store, start_store,
        )  # fmt: skip
        start(etcd_runs, store)
        start_api()
        yield plane


def _answers(plane: ControlPlane, server: subprocess.Popen[bytes]) -> bool:
    log = plane.folder / "kube-apiserver.log"
    assert server.poll() is None, log.read_text()[-4000:]
    if not (plane.folder / "certs" / "apiserver.crt").exists():
        return False
    with plane.client() as client:
        return client.get("/readyz").is_success


@contextmanager
def controllers(plane: ControlPlane) -> Iterator[None]:
    """Run Kubernetes' own controllers, but those that judge nodes by their heartbeats."""
    (port,) = free_ports(1)
    with process(
        plane.folder, "kube-controller-manager", f"--kubeconfig={plane.kubeconfig()}",
        f"--service-account-private-key-file={plane.folder / 'sa.key'}", "--leader-elect=false",
        "--controllers=*,-node-lifecycle-controller,-node-ipam-controller",
        f"--secure-port={port}", "--bind-address=127.0.0.1",
        f"--cert-dir={plane.folder / 'certs'}",
    ):  # fmt: skip
        yield


@contextmanager
def process(folder: Path, program: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run one of the programs that Go built; it logs to `PROGRAM.log` in the folder."""
    # Where that can be had, it ends with whoever started it, even one that is killed.
    bound = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    with (folder / f"{program}.log").open("wb") as log:
        process = subprocess.Popen([*bound, tool(program), *arguments], stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _write_secrets(folder: Path, users: Sequence[str]) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (folder / "sa.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    lines = [f'{ADMIN},admin,1,"system:masters"', *(f"{u}-token,{u},{u}" for u in users)]
    (folder / "tokens.csv").write_text("\n".join(lines) + "\n")


def _established(client: httpx.Client, path: str) -> bool:
    conditions = client.get(path).json().get("status", {}).get("conditions") or []
    refused = [c for c in conditions if c["type"] in ("NonStructuralSchema",)]
    assert not refused, refused
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


def wait(holds: Callable[[], bool], what: str, seconds: float = READY_SECONDS) -> None:
    """Wait until something holds; a server that does not answer yet is not a failure."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if holds():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.2)
