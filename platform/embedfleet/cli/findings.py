"""What a machine's facts mean for a fleet: functions of values, so that every case can be tested.

Each finding is a fact, and advice where something better is within reach. Knows nothing of how the
facts are found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from embedfleet.catalog import PUBLISHED

__all__ = [
    "Cpu",
    "Finding",
    "Gpu",
    "cpu_findings",
    "flag_findings",
    "gpu_findings",
    "memory_finding",
    "port_finding",
    "speed_finding",
    "version_finding",
]

GIB = 2**30
# Weights are not alone in memory: activations, the interpreter, Ray.
MEMORY_PER_WEIGHTS = 1.3


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        advice: What would make it better; empty if nothing needs to.
        blocks: Whether a fleet cannot start because of it.
    """

    name: str
    value: str
    advice: str = ""
    blocks: bool = False


@dataclass(frozen=True, slots=True)
class Cpu:
    """What models see of the processor."""

    model: str
    usable_cores: int
    all_cores: int
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Gpu:
    """One visible GPU."""

    name: str
    memory_bytes: int


def version_finding(name: str, found: str | None) -> Finding:
    """Judge one needed package."""
    if found is None:
        advice = f"{name} is needed; install this package again."
        return Finding(name, "not installed", advice, blocks=True)
    return Finding(name, found)


def cpu_findings(cpu: Cpu, has_gpu: bool) -> list[Finding]:
    """Say what the processor gives, and whether some of it is held back."""
    cores = f"{cpu.usable_cores} of {cpu.all_cores} cores"
    fewer = cpu.usable_cores < cpu.all_cores
    held_back = "This process is held to some of the cores (taskset, cgroup): give it more."
    return [
        Finding("CPU", f"{cpu.model}, {cores}", held_back if fewer and not has_gpu else ""),
        Finding("matrix features", ", ".join(cpu.features) or "none"),
    ]


def speed_finding(
    device: str, dtype: str, gflops: Mapping[str, float], advice: Sequence[str]
) -> Finding:
    """Say where models run, in which type, and how fast the device multiplies matrices.

    `gflops` is the measured rate by type, in 10^9 operations a second.
    """
    rates = ", ".join(f"{kind} {rate:,.0f}" for kind, rate in gflops.items())
    return Finding("models run on", f"{device} in {dtype}; GFLOP/s: {rates}", " ".join(advice))


def gpu_findings(gpus: tuple[Gpu, ...], torch_cuda: str, driver: bool) -> list[Finding]:
    """Say which GPUs there are, or why none is seen.

    Args:
        gpus: Those that torch sees.
        torch_cuda: CUDA version torch was built for; empty for a CPU build.
        driver: Whether the machine has NVIDIA's driver.
    """
    if gpus:
        return [Finding("GPU", f"{gpu.name}, {gpu.memory_bytes / GIB:.0f} GiB") for gpu in gpus]
    if driver and not torch_cuda:
        advice = "There is an NVIDIA driver, but torch is a CPU build: install a CUDA build."
    elif driver:
        advice = (
            f"There is an NVIDIA driver, but torch for CUDA {torch_cuda} sees no GPU: check "
            "nvidia-smi, CUDA_VISIBLE_DEVICES and the driver's version."
        )
    elif torch_cuda:
        advice = "torch is a CUDA build; UV_TORCH_BACKEND=cpu installs a much smaller one."
    else:
        advice = ""
    return [Finding("GPU", "none", advice)]


def memory_finding(available_bytes: int, dtype: str) -> Finding:
    """Say which published sizes fit into memory beside nothing else."""
    width = 4 if dtype == "float32" else 2
    needs = {model.size: model.num_parameters * width for model in PUBLISHED}
    fitting = [size for size, need in needs.items() if need * MEMORY_PER_WEIGHTS < available_bytes]
    value = f"{available_bytes / GIB:.1f} GiB free"
    if fitting:
        return Finding("memory", f"{value}; one replica fits of: {', '.join(fitting)}")
    smallest = min(needs.values()) * MEMORY_PER_WEIGHTS / GIB
    advice = f"The smallest published model needs {smallest:.1f} GiB in {dtype}; free some memory."
    return Finding("memory", value, advice)


def port_finding(port: int, free: bool) -> Finding:
    """Judge the port that a Fleet takes unless its manifest names another."""
    if free:
        return Finding(f"port {port}", "free")
    advice = "Name another one in spec.grpc.port, or take any with `embedfleet up --port 0`."
    return Finding(f"port {port}", "in use", advice)


def flag_findings(wanted: Mapping[str, str], environment: Mapping[str, str]) -> list[Finding]:
    """Compare the flags that a local fleet gives to Ray with those already set."""
    findings = []
    for name, value in wanted.items():
        found = environment.get(name)
        advice = (
            f"The environment says {found}, which `embedfleet up` overrides; a Ray cluster started "
            "elsewhere needs the value shown."
            if found not in (None, value)
            else ""
        )
        findings.append(Finding(name, value, advice))
    return findings
