"""A network of its own for pods: one bridge, a namespace and an address for each.

What is made is named after the process that made it, so that leftovers of a process that was killed
are found and removed by the next. Nothing is routed: pods reach each other and this machine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

__all__ = ["Namespace", "Network", "bridge", "missing", "sweep"]

PROGRAMS = ("ip", "mount", "nsenter", "setpriv", "unshare")
_SHARED = IPv4Network("100.64.0.0/10")
"""Addresses that no machine has of its own (RFC 6598)."""
_BRIDGE_ADDRESS = "02:00:00:00:00:01"
"""Given, so that it stays. A bridge without one takes the lowest of its links at any time, and what
pods send to the address before is lost until they ask for it again, 20 s later or so."""
_SEED = 1
_OURS = re.compile(r"\bef(\d+)[bn-]")


@dataclass(frozen=True)
class Namespace:
    """Where a pod's processes live.

    Attributes:
        name: As in /run/netns.
        interface: Its end of the link that this machine holds.
    """

    name: str
    address: str
    interface: str


@dataclass(frozen=True)
class Network:
    """A bridge with a subnet, half of it for pods, and a part of it for Services.

    Attributes:
        owner: Process that it is named after.
    """

    owner: int
    subnet: str

    @property
    def bridge(self) -> str:
        """Its interface."""
        return f"ef{self.owner}b"

    @property
    def gateway(self) -> str:
        """This machine's address on it."""
        return str(IPv4Network(self.subnet)[1])

    @property
    def services(self) -> str:
        """Addresses that Services are given."""
        return str(next(_half(self.subnet, 1).subnets(new_prefix=24)))

    def join(self, number: int) -> Namespace:
        """Make a namespace with a default route: without one, Ray takes 127.0.0.1 as its own."""
        name, interface = f"ef{self.owner}-{number}", f"ef{self.owner}n{number}"
        address = str(_half(self.subnet, 0)[number + 10])
        _ip(
            f"netns add {name}",
            f"link add {interface} type veth peer name eth0 netns {name}",
            f"link set {interface} master {self.bridge} up",
        )
        _ip(
            "link set lo up", f"addr add {address}/16 dev eth0", "link set eth0 up",
            f"route add default via {self.gateway}", inside=name,
        )  # fmt: skip
        return Namespace(name, address, interface)

    def at(self, address: str) -> Namespace:
        """Find the namespace that has an address."""
        number = int(IPv4Address(address)) - int(_half(self.subnet, 0)[10])
        return Namespace(f"ef{self.owner}-{number}", address, f"ef{self.owner}n{number}")

    def leave(self, namespace: Namespace) -> None:
        """Remove a namespace; its link goes with it."""
        _ip(f"netns del {namespace.name}")

    def cut(self, namespace: Namespace) -> None:
        """Take a namespace's link down; nobody there is told."""
        _ip(f"link set {namespace.interface} down")

    def mend(self, namespace: Namespace) -> None:
        """Bring it up again."""
        _ip(f"link set {namespace.interface} up")

    @contextmanager
    def slow(self, namespace: Namespace, delay_seconds: float, loss: float) -> Iterator[None]:
        """Delay what a namespace sends and receives, and lose some of it, each way."""
        near, end = f"{namespace.interface}s", f"{namespace.interface}t"
        _ip(
            f"link add {near} type veth peer name {end}",
            # This machine must not answer there for the addresses that it has elsewhere.
            f"link set {end} arp off up",
            f"link set {namespace.interface} nomaster arp off",
            f"link set {near} master {self.bridge} up",
        )
        command = [
            "setpriv", "--pdeathsig", "KILL", sys.executable,
            Path(__file__).with_name("slow_link.py"), namespace.interface, end,
            str(delay_seconds), str(loss), str(_SEED),
        ]  # fmt: skip
        carrier = subprocess.Popen(command, stdout=subprocess.PIPE)
        try:
            assert carrier.stdout is not None
            # Until then nothing arrives: what asks for an address gives up after three seconds.
            assert carrier.stdout.readline() == b"carries\n", "the slow link did not begin"
            yield
            assert carrier.poll() is None, "the slow link ended"
        finally:
            carrier.kill()
            carrier.communicate()
            # A pod that ended meanwhile has taken its link along.
            subprocess.run(["ip", "link", "del", near], check=False)
            restored = ["ip", "link", "set", namespace.interface, "master", self.bridge]
            subprocess.run([*restored, "arp", "on"], capture_output=True, check=False)

    def serve(self, address: str) -> None:
        """Let this machine answer for one more address."""
        _ip(f"addr replace {address}/32 dev {self.bridge}")


@contextmanager
def bridge() -> Iterator[Network]:
    """Make a network for this process, after removing those of processes that are gone."""
    sweep()
    taken = subprocess.run(["ip", "-4", "addr"], capture_output=True, text=True, check=True).stdout
    free = (each for each in _SHARED.subnets(new_prefix=16) if f" {each[1]}/" not in taken)
    network = Network(os.getpid(), str(next(free)))
    try:
        _ip(
            f"link add {network.bridge} address {_BRIDGE_ADDRESS} type bridge",
            f"addr add {network.gateway}/16 dev {network.bridge}",
            f"link set {network.bridge} up",
        )
        yield network
    finally:
        _remove(network.owner)


def sweep() -> None:
    """Remove what processes left that no longer run."""
    for owner in _owners():
        if not os.path.exists(f"/proc/{owner}"):
            _remove(owner)


def missing() -> str:
    """Say why no namespaces can be made here; empty where they can."""
    absent = [each for each in PROGRAMS if shutil.which(each) is None]
    if absent:
        return f"{', '.join(absent)}: not on the PATH"
    if os.geteuid() != 0:
        return "namespaces need root"
    script = "mount -t tmpfs t /mnt && mkdir /mnt/u /mnt/w /mnt/m && mount -t overlay o /mnt/m"
    script += " -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w"
    tried = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "sh", "-ec", script],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return f"namespaces are not allowed: {tried.stderr.strip()}" if tried.returncode else ""


def _half(subnet: str, which: int) -> IPv4Network:
    return list(IPv4Network(subnet).subnets())[which]


def _owners() -> set[int]:
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True)
    names = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True)
    return {int(each) for each in _OURS.findall(links.stdout + names.stdout)}


def _remove(owner: int) -> None:
    listed = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    for name in re.findall(rf"^ef{owner}-\d+", listed, re.M):
        _ip(f"netns del {name}")
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    for name in {f"ef{owner}b", *re.findall(rf"\bef{owner}n\w+", links)}:
        subprocess.run(["ip", "link", "del", name], capture_output=True, check=False)


def _ip(*commands: str, inside: str = "") -> None:
    where = ["-netns", inside] if inside else []
    done = subprocess.run(
        ["ip", *where, "-batch", "-"],
        input="\n".join(commands), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise OSError(f"ip {commands}: {done.stderr.strip()}")
