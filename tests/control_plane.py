"""A real control plane for tests: etcd and kube-apiserver on free ports, stopped by their handles.

Nothing runs pods, and no controller runs: what is judged here is what the API server itself says.
"""

from __future__ import annotations

import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from go_tools import missing_go, tool

from embedfleet.local.ports import free_ports

__all__ = ["ControlPlane", "control_plane", "missing"]

READY_SECONDS: Final = 120
"""A machine that builds something else meanwhile needs most of it; an idle one needs 5."""

ADMIN: Final = "admin-token"


@dataclass(frozen=True)
class ControlPlane:
    """A running API server.

    Attributes:
        url: Its address.
        folder: Data, logs and certificates.
    """

    url: str
    folder: Path

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
        path = self.folder / f"kubeconfig-{token}"
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
        """Create definitions and wait until the API server serves them all."""
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        with self.client() as client:
            for each in definitions:
                response = client.post(path, json=each)
                assert response.is_success, response.text
            for each in definitions:
                name = each["metadata"]["name"]
                _wait(lambda name=name: _established(client, f"{path}/{name}"), f"{name} to serve")


def missing() -> str:
    """Say why no control plane can be started here; empty where one can."""
    wanted = [name for name in ("etcd", "kube-apiserver") if not tool(name).exists()]
    if not wanted:
        return ""
    return f"{', '.join(wanted)}: {missing_go() or 'not built; `make tools` builds it'}"


@contextmanager
def control_plane(folder: Path, users: Sequence[str] = ()) -> Iterator[ControlPlane]:
    """Start etcd and kube-apiserver, and stop both.

    Args:
        folder: Empty folder for data, logs and certificates.
        users: More users, each with the token `NAME-token` and no rights but those given to it.
    """
    etcd, peer, port = free_ports(3)
    _write_secrets(folder, users)
    stores, peers = f"http://127.0.0.1:{etcd}", f"http://127.0.0.1:{peer}"
    with ExitStack() as started:
        started.enter_context(
            _process(folder, "etcd", f"--data-dir={folder / 'etcd'}", "--unsafe-no-fsync",
                     f"--listen-client-urls={stores}", f"--advertise-client-urls={stores}",
                     f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}",
                     f"--initial-cluster=default={peers}")
        )  # fmt: skip
        server = started.enter_context(
            _process(folder, "kube-apiserver", f"--etcd-servers={stores}",
                     f"--secure-port={port}", "--bind-address=127.0.0.1",
                     f"--cert-dir={folder / 'certs'}", "--authorization-mode=RBAC",
                     f"--token-auth-file={folder / 'tokens.csv'}",
                     "--service-account-issuer=https://kubernetes.default.svc",
                     f"--service-account-key-file={folder / 'sa.key'}",
                     f"--service-account-signing-key-file={folder / 'sa.key'}",
                     "--service-cluster-ip-range=10.0.0.0/24",
                     "--disable-admission-plugins=ServiceAccount")
        )  # fmt: skip
        plane = ControlPlane(f"https://127.0.0.1:{port}", folder)

        def ready() -> bool:
            assert server.poll() is None, (folder / "kube-apiserver.log").read_text()[-4000:]
            if not (folder / "certs" / "apiserver.crt").exists():
                return False
            with plane.client() as client:
                return client.get("/readyz").is_success

        _wait(ready, "the API server")
        yield plane


@contextmanager
def _process(folder: Path, program: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / f"{program}.log").open("wb") as log:
        process = subprocess.Popen([tool(program), *arguments], stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
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
    conditions = client.get(path).json().get("status", {}).get("conditions", [])
    refused = [c for c in conditions if c["type"] in ("NonStructuralSchema",)]
    assert not refused, refused
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


def _wait(holds: Any, what: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            if holds():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, f"waited {READY_SECONDS} s for {what}"
        time.sleep(0.2)
