"""What the machine has and what else runs on it: a ratio belongs to one machine, a quiet one."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from time import perf_counter

import psutil
import torch

from embedfleet.engine.torch.device import cpu_features, cpu_name

CORES = len(os.sched_getaffinity(0))


def describe() -> str:
    """Return two lines: processor and software."""
    features = cpu_features()
    absent = [name for name in ("amx_bf16", "avx512_bf16", "avx512") if name not in features.names]
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"machine: {cpu_name()}, {CORES} cores, "
        f"has {' '.join(features.names) or 'none of the features below'}, "
        f"lacks {' '.join(absent) or 'nothing'}, {memory:.0f} GiB, "
        f"load {os.getloadavg()[0]:.2f}\n"
        f"software: Python {platform.python_version()}, torch {torch.__version__}, "
        f"{CORES} threads on each side"
    )


@dataclass
class Usage:
    """What happened on the machine during one measurement.

    Attributes:
        seconds: Wall time.
        own_cores: Cores that the processes under measurement kept busy, on average.
        other_cores: Cores that everything else kept busy.
    """

    seconds: float = 0.0
    own_cores: float = 0.0
    other_cores: float = 0.0


@dataclass
class Watch:
    """Measures time, and who used the cores meanwhile.

    Attributes:
        pids: Processes under measurement beside this one.
    """

    pids: Iterable[int] = field(default_factory=tuple)

    @contextmanager
    def measure(self) -> Iterator[Usage]:
        """Fill the usage when the block ends."""
        usage = Usage()
        busy, own, started = _busy(), self._own(), perf_counter()
        yield usage
        usage.seconds = perf_counter() - started
        usage.own_cores = (self._own() - own) / usage.seconds
        usage.other_cores = max((_busy() - busy) / usage.seconds - usage.own_cores, 0.0)

    def _own(self) -> float:
        total = 0.0
        for pid in (os.getpid(), *self.pids):
            with suppress(psutil.NoSuchProcess):
                times = psutil.Process(pid).cpu_times()
                total += times.user + times.system
        return total


def _busy() -> float:
    times = psutil.cpu_times()
    return times.user + times.system + times.nice
