"""One Ray node as a child process group, with the environment that Serve's fast path needs.

Serve reads its constants from the environment of every Ray process, so the flags are given to
`ray start`, from which all others inherit. The same environment carries a mark by which everything
that belongs to a fleet is found again, HAProxy included, which outlives its parents.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psutil

from embedfleet.errors import Unavailable
from embedfleet.local.ports import REPLICA_BLOCK, LocalPorts
from embedfleet.rendering.flags import SERVE_FLAGS

__all__ = ["MARK", "RAY_LOG_FILE", "node_environment", "processes_of", "start_node", "stop_all"]

MARK: Final = "EMBEDFLEET_FLEET_ID"

RAY_LOG_FILE: Final = "ray.log"
_STOP_SECONDS: Final = 15.0


def node_environment(base: Mapping[str, str], ports: LocalPorts, folder: Path) -> dict[str, str]:
    """Build the environment of every process of a local fleet.

    Args:
        base: Environment to extend; holds the fleet's mark and Ray's token.
        ports: Where Serve's processes listen.
        folder: Short-lived files of this fleet: HAProxy's configuration and sockets.
    """
    replica_last = REPLICA_BLOCK - 1
    return {
        **base,
        **SERVE_FLAGS,
        # The interpreter that runs this also runs the replicas.
        "PATH": f"{Path(sys.executable).parent}:{base.get('PATH', '/usr/bin:/bin')}",
        # What its processes leave behind goes with the fleet.
        "TMPDIR": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Idle workers, one a core, would compete with the replicas that are starting.
        "RAY_prestart_worker_first_driver": "0",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports.fallback_http),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(ports.fallback_grpc),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports.haproxy_metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports.haproxy_stats),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "serve-haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "serve-admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "serve-haproxy.state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "serve-metrics.sock"),
        "RAY_SERVE_HAPROXY_NBTHREAD": "2",
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(ports.replica_http_first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(ports.replica_http_first + replica_last),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(ports.replica_grpc_first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(ports.replica_grpc_first + replica_last),
    }


def start_node(
    environment: Mapping[str, str], ports: LocalPorts, folder: Path, num_cpus: int
) -> subprocess.Popen[bytes]:
    """Start a head node that stays in the foreground of its own process session."""
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        "--disable-usage-stats",
        # No nodes to scale and no driver to show logs to: two processes less.
        "--no-monitor",
        "--include-log-monitor=false",
        "--node-ip-address=127.0.0.1",
        f"--num-cpus={num_cpus}",
        f"--temp-dir={folder / 'ray'}",
        f"--port={ports.gcs}",
        "--include-dashboard=true",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={ports.dashboard}",
        f"--dashboard-agent-listen-port={ports.dashboard_agent}",
        f"--dashboard-agent-grpc-port={ports.dashboard_agent_grpc}",
        f"--runtime-env-agent-port={ports.runtime_env_agent}",
        f"--node-manager-port={ports.node_manager}",
        f"--object-manager-port={ports.object_manager}",
        f"--metrics-export-port={ports.metrics_export}",
        f"--ray-client-server-port={ports.ray_client}",
        f"--min-worker-port={ports.worker_first}",
        f"--max-worker-port={ports.worker_first + REPLICA_BLOCK - 1}",
        # Only control messages use the object store: vectors never pass through it.
        f"--object-store-memory={100 * 1024 * 1024}",
    ]
    log = (folder / RAY_LOG_FILE).open("ab")
    try:
        return subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    finally:
        log.close()


def processes_of(fleet_id: str) -> set[psutil.Process]:
    """Find every process that belongs to a fleet.

    Those whose environment carries the mark, and their descendants: a process that sets its own
    title may overwrite its environment doing so, as Ray's agents do.
    """
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        # Processes end while they are looked at, and those of other users hide theirs.
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == fleet_id:
                found.add(process)
    for process in tuple(found):
        with contextlib.suppress(psutil.Error):
            found.update(process.children(recursive=True))
    return found


def stop_all(fleet_id: str, grace_seconds: float = _STOP_SECONDS) -> None:
    """End every process of a fleet: ask, wait, then insist; new ones included.

    Raises:
        Unavailable: Processes are left that could not be ended.
    """
    deadline = time.monotonic() + 2 * grace_seconds
    how = signal.SIGTERM
    # Kept, because the children of a process that has ended are nobody's descendants any more.
    known: set[psutil.Process] = set()
    while remaining := _alive(known | processes_of(fleet_id)):
        known |= remaining
        for process in remaining:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(how)
        psutil.wait_procs(remaining, timeout=2.0 if how == signal.SIGKILL else 5.0)
        if time.monotonic() > deadline:
            pids = ", ".join(str(process.pid) for process in remaining)
            raise Unavailable(f"Processes {pids} of fleet {fleet_id} do not end. Kill them.")
        how = signal.SIGKILL


def _alive(processes: set[psutil.Process]) -> set[psutil.Process]:
    """Keep those that run, but for this one: a command may be a descendant of its own fleet."""
    own = psutil.Process()
    return {
        process
        for process in processes
        if process != own and process.is_running() and not _is_zombie(process)
    }


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
