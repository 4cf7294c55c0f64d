"""A container as a process of this machine: its own files, processes, host name; its pod's network.

Its root is this machine's, with what it writes kept in memory; /dev, /proc, /run, /tmp are its own.
It ends with the process that started it, however that ends: nothing outlives a test that is killed.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from e2e.network import Namespace
from e2e.volumes import Mount

__all__ = ["Launch", "Running", "start"]

DEVICES = ("full", "null", "random", "tty", "urandom", "zero")
_POLL = 0.02


@dataclass(frozen=True)
class Launch:
    """What is started.

    Attributes:
        command: Found on the PATH of the variables.
        host: Name of the machine that it believes to be on.
        scratch: Empty folder; the container's root is mounted on it, seen by the container alone.
        resolver: Address of the name server.
        kept: Folders of this machine that must be seen as they are, whatever is mounted over them.
        group: File of the control group that it joins, if it is there.
    """

    command: Sequence[str]
    variables: Mapping[str, str]
    namespace: Namespace
    host: str
    scratch: Path
    resolver: str
    search: str = ""
    folder: str = "/"
    mounts: Sequence[Mount] = ()
    kept: Sequence[Path] = ()
    group: Path | None = None


@dataclass
class Running:
    """A container that runs.

    Attributes:
        first: Its first process, as this machine numbers it; 0 before it is known.
    """

    launch: Launch
    process: asyncio.subprocess.Process
    first: int = 0
    killed: bool = False

    async def wait(self) -> int:
        """Wait for its end; a signal counts 128 and its number, as a shell says it."""
        code = await self.process.wait()
        shutil.rmtree(self.launch.scratch, ignore_errors=True)
        if self.killed:
            # unshare cannot end by this signal as its child did, and says 1.
            return 128 + signal.SIGKILL
        return 128 - code if code < 0 else code

    def signal(self, number: int) -> None:
        """Signal its first process; the end of that one is the end of all."""
        self.killed = self.killed or (number == signal.SIGKILL and self.process.returncode is None)
        with suppress(ProcessLookupError):
            os.kill(self.first or self.process.pid, number)

    async def run(self, command: Sequence[str], seconds: float) -> int:
        """Run a command inside; 124 if it takes longer."""
        inside = [
            "nsenter",
            f"--target={self.first}",
            "--mount",
            "--uts",
            "--net",
            "--pid",
            "--root",
        ]
        process = await asyncio.create_subprocess_exec(
            *_DIES_WITH_US, *inside, "env", f"--chdir={self.launch.folder}", *command,
            env=dict(self.launch.variables), stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            return await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            return 124
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


_DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")


async def start(launch: Launch, log: Path) -> Running:
    """Start a container; what it prints is added to its log."""
    launch.scratch.mkdir(parents=True)
    command = [
        *_DIES_WITH_US, "nsenter", f"--net=/run/netns/{launch.namespace.name}", "unshare",
        "--mount", "--uts", "--pid", "--fork", "--kill-child=KILL",
        "sh", "-euc", script(launch), "sh", *launch.command,
    ]  # fmt: skip
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *command, env=dict(launch.variables), stdin=asyncio.subprocess.DEVNULL,
            stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    running = Running(launch, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.returncode is None and not running.first:
        with suppress(OSError):
            running.first = next(map(int, children.read_text().split()), 0)
        await asyncio.sleep(_POLL)
    return running


def script(launch: Launch) -> str:
    """Write what prepares a container's root and becomes its command."""
    base, root = (shlex.quote(str(each)) for each in (launch.scratch, launch.scratch / "root"))
    mounts = [*launch.mounts, *(Mount(each, str(each)) for each in launch.kept)]
    hosts = f"127.0.0.1 localhost\n{launch.namespace.address} {launch.host}"
    names = f"nameserver {launch.resolver}\nsearch {launch.search}\noptions ndots:5"
    joined = [f"echo 0 > {launch.group}"] if launch.group and launch.group.exists() else []
    lines = [
        *joined,
        f"mount -t tmpfs tmpfs {base}",
        f"mkdir {base}/upper {base}/work {root}",
        f"mount -t overlay overlay -o lowerdir=/,upperdir={base}/upper,workdir={base}/work {root}",
        *(f"mount -t tmpfs -o mode=1777 tmpfs {root}/{each}" for each in ("tmp", "run")),
        f"mount -t proc proc {root}/proc",
        f"mount -t sysfs sysfs {root}/sys",
        f"mount -t tmpfs tmpfs {root}/dev",
        f"ln -s /proc/self/fd {root}/dev/fd",
        f"mkdir -m 1777 {root}/dev/shm",
        *(_bind(f"/dev/{each}", f"{root}/dev/{each}", folder=False) for each in DEVICES),
        f"rm -f {root}/etc/resolv.conf {root}/etc/hosts",
        f"echo {shlex.quote(hosts)} > {root}/etc/hosts",
        f"echo {shlex.quote(names)} > {root}/etc/resolv.conf",
        f"hostname {shlex.quote(launch.host)}",
        *(
            _bind(shlex.quote(str(each.source)), f"{root}{_STAGE}/{n}", folder=each.source.is_dir())
            for n, each in enumerate(mounts)
        ),
    ]
    # Links such as /var/run lead to where they should only from inside.
    inside = [_place(n, each) for n, each in enumerate(mounts)]
    folder = shlex.quote(launch.folder)
    inside += [f"mkdir -p {folder}", f'exec env --chdir={folder} "$@"']
    last = shlex.join(["exec", "chroot", str(launch.scratch / "root"), "sh", "-euc"])
    return "\n".join([*lines, f'{last} {shlex.quote(chr(10).join(inside))} sh "$@"'])


_STAGE = "/.volumes"


def _place(number: int, mount: Mount) -> str:
    target = shlex.quote(mount.target)
    bind = _bind(f"{_STAGE}/{number}", target, folder=mount.source.is_dir())
    return f"{bind}; mount -o remount,bind,ro {target}" if mount.read_only else bind


def _bind(source: str, target: str, *, folder: bool) -> str:
    make = f"mkdir -p {target}" if folder else f"mkdir -p $(dirname {target}); touch {target}"
    return f"{make}; mount --rbind {source} {target}"
