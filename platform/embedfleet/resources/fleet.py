"""The `Fleet` kind: the cluster that models run on and the port that clients call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import Field

from embedfleet.resources.base import (
    API_VERSION,
    PATTERNS,
    Name,
    Part,
    PullSecrets,
    Resource,
    Subdomain,
    Violation,
    repetitions,
)
from embedfleet.resources.pool import Pool

__all__ = ["Auth", "ExistingCluster", "Fleet", "FleetSpec", "GcsFaultTolerance", "Head", "Tls"]

_IMAGE: Final = r"^[A-Za-z0-9][A-Za-z0-9._/:@-]*$"
_VERSION: Final = r"^[0-9]+\.[0-9]+\.[0-9]+$"
_PATH: Final = r"^/[^\n\r\x00]+$"
_ADDRESS: Final = r"^[A-Za-z0-9._:/@-]+$"
_HOST: Final = r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$"
_DASHBOARD: Final = r"^https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$"
PATTERNS.update(
    {
        _IMAGE: "must be an image reference such as registry/embedfleet:0.1.0",
        _VERSION: "must be three numbers with dots, such as 2.60.0",
        _PATH: "must be an absolute path",
        _ADDRESS: "must be an address such as redis:6379",
        _HOST: "must be a host name such as ray-head, without a port",
        _DASHBOARD: "must be an address such as http://ray-head:8265, without a path",
    }
)

Port = Annotated[int, Field(ge=1, le=65_535)]
File = Annotated[str, Field(pattern=_PATH, max_length=1024)]


class Grpc(Part):
    """The port that clients call."""

    port: Port = 9000
    """Where the fleet answers gRPC."""
    max_message_bytes: Annotated[int, Field(ge=65_536, le=2_147_483_647)] = 67_108_864
    """Largest request message, also of a stream; larger ones are refused by their length."""


class Head(Part):
    """The node that runs the cluster's control processes."""

    cpus: Annotated[int, Field(ge=1, le=256)] = 2
    """CPU cores."""
    memory_gib: Annotated[int, Field(ge=1, le=1024)] = 8
    """Memory, in GiB."""


class GcsFaultTolerance(Part):
    """Where the cluster's state survives a restart of the head."""

    redis_address: Annotated[str, Field(pattern=_ADDRESS, max_length=253)]
    """Address of Redis, such as redis:6379."""
    password_secret_name: Name | None = None
    """Secret whose key `password` holds Redis' password."""


class Auth(Part):
    """Who may call the cluster's dashboard and processes."""

    token_secret_name: Name
    """Secret whose key `auth_token` holds Ray's token."""


class Tls(Part):
    """Certificates of the fleet's port: files on a laptop, Secrets on Kubernetes."""

    certificate_file: File | None = None
    """PEM file of the certificate and its chain."""
    private_key_file: File | None = None
    """PEM file of the private key."""
    client_ca_file: File | None = None
    """PEM file of the authorities that sign client certificates; makes them required."""
    secret_name: Name | None = None
    """Secret of type kubernetes.io/tls."""
    client_ca_secret_name: Name | None = None
    """Secret whose key `ca.crt` signs client certificates; makes them required."""

    def violations(self) -> Iterator[Violation]:
        """One way only, and complete."""
        files = (self.certificate_file, self.private_key_file, self.client_ca_file)
        secrets = (self.secret_name, self.client_ca_secret_name)
        everything = ("certificateFile", "privateKeyFile", "clientCaFile", "secretName")
        if any(files) and any(secrets):
            yield Violation(
                "secretName", self.secret_name, "cannot stand beside files",
                "Keep the files on a laptop, the Secrets on Kubernetes.", everything,
            )  # fmt: skip
            return
        if any(secrets):
            if self.secret_name is None:
                yield Violation(
                    "secretName", "missing", "is needed with clientCaSecretName", "Set it.",
                    everything,
                )  # fmt: skip
            return
        for field, value in (
            ("certificateFile", self.certificate_file),
            ("privateKeyFile", self.private_key_file),
        ):
            if value is None:
                yield Violation(
                    field, "missing", "is needed for TLS", "Set it, or leave out tls.", everything
                )

    @property
    def verifies_clients(self) -> bool:
        """Whether clients must bring a certificate."""
        return bool(self.client_ca_file or self.client_ca_secret_name)


class ExistingCluster(Part):
    """A Ray cluster that somebody else runs, for this fleet alone."""

    dashboard: Annotated[str, Field(pattern=_DASHBOARD, max_length=253)]
    """Address of its dashboard, such as http://ray-head:8265."""
    serve_host: Annotated[str, Field(pattern=_HOST, max_length=253)]
    """Host name of Serve's proxies, such as ray-head."""
    serve_grpc_port: Port = 9000
    """Where Serve's proxies answer gRPC."""
    serve_http_port: Port = 8000
    """Where Serve's proxies answer HTTP."""


class FleetSpec(Part):
    """One cluster, its pools and its port."""

    image: Annotated[str, Field(pattern=_IMAGE, max_length=255)] | None = None
    """Image of the cluster's pods. Default: the operator's own release, so that upgrading that one
    builds a new cluster: name an image to decide yourself when. Not used on a laptop."""
    ray_version: Annotated[str, Field(pattern=_VERSION, max_length=16)] = "2.60.0"
    """Ray release inside the image."""
    image_pull_secrets: PullSecrets = ()
    """Secrets of this namespace with which the image is pulled. Not used on a laptop."""
    service_account_name: Subdomain | None = None
    """ServiceAccount of workers and edge, such as one that cloud storage knows. The head keeps the
    one that KubeRay makes for its autoscaler. Default: `default`. Not used on a laptop."""
    grpc: Grpc = Grpc()
    """The port that clients call."""
    pools: Annotated[tuple[Pool, ...], Field(max_length=16)] = ()
    """Nodes by kind. None: models run on the CPU cores of the machine at hand."""
    existing_cluster: ExistingCluster | None = None
    """A Ray cluster that runs already. None: one is built. Not used on a laptop."""
    head: Head = Head()
    """The node that runs the cluster's control processes."""
    gcs_fault_tolerance: GcsFaultTolerance | None = None
    """Where the cluster's state survives a restart of the head."""
    auth: Auth | None = None
    """Who may call the cluster's dashboard and processes."""
    tls: Tls | None = None
    """Certificates of the fleet's port. None: plain text."""

    def violations(self) -> Iterator[Violation]:
        """Names are unique; fallbacks exist, match and end."""
        yield from repetitions("imagePullSecrets", self.image_pull_secrets)
        by_name: dict[str, Pool] = {}
        for index, pool in enumerate(self.pools):
            if pool.name in by_name:
                yield Violation(
                    f"pools[{index}].name", pool.name, "is the name of an earlier pool",
                    "Rename one of the two.", ("pools",),
                )  # fmt: skip
            by_name.setdefault(pool.name, pool)
        if self.existing_cluster and self.gcs_fault_tolerance:
            yield Violation(
                "gcsFaultTolerance", "set", "a cluster that runs already has its own, or none",
                "Leave it out, or leave out existingCluster.", ("existingCluster",),
            )  # fmt: skip
        for index, pool in enumerate(self.pools):
            yield from self._fallback(f"pools[{index}].fallbackPool", pool, by_name)

    def _fallback(self, path: str, pool: Pool, by_name: dict[str, Pool]) -> Iterator[Violation]:
        name = pool.fallback_pool
        if name is None:
            return
        other = by_name.get(name)
        if other is None:
            known = ", ".join(by_name)
            yield Violation(
                path, name, "is not a pool of this fleet", f"Known: {known}.", ("pools",)
            )
        elif other.has_gpus != pool.has_gpus:
            yield Violation(
                path, name, "must be of the same kind, GPU or CPU",
                "Choose a pool of the same kind.", ("pools",),
            )  # fmt: skip
        elif pool.name in self.chain(name):
            yield Violation(path, name, "leads back to this pool", "Break the circle.", ("pools",))

    def chain(self, name: str) -> tuple[str, ...]:
        """List a pool and the pools it falls back to, in order, each once."""
        by_name = {pool.name: pool for pool in self.pools}
        found: list[str] = []
        following: str | None = name
        while following is not None and following in by_name and following not in found:
            found.append(following)
            following = by_name[following].fallback_pool
        return tuple(found)


class Fleet(Resource):
    """A cluster that serves models behind one gRPC port."""

    api_version: Literal["embedfleet.io/v1alpha1"] = API_VERSION
    """Schema of this resource."""
    kind: Literal["Fleet"] = "Fleet"
    """Always Fleet."""
    spec: FleetSpec = FleetSpec()
    """What is wanted."""
