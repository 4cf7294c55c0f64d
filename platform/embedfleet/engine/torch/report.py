"""What `doctor` tells about the machine: features, choices, a short measurement, advice.

The measured rate is of one product as large as a small model's widest layer, best of a few: an
upper bound of what inference can reach here, in units that hardware is sold by.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from embedfleet.engine.torch.device import CpuFeatures, choose_dtype, cpu_features, cpu_name

__all__ = ["DeviceReport", "advice", "describe_device"]

_TOKENS, _WIDTH_IN, _WIDTH_OUT = 512, 1024, 3072
_REPEATS = 4


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """Facts and choices of one machine.

    Attributes:
        device: Such as `cpu` or `cuda:0`.
        name: The device as its maker calls it.
        num_cores: CPU cores this process may use.
        features: What the CPU has for matrix products, best first.
        dtype: What `auto` chooses here.
        gflops: Measured rate of a matrix product by type, in 10^9 operations a second.
        advice: What would make it faster; empty if nothing is known.
    """

    device: str
    name: str
    num_cores: int
    features: tuple[str, ...]
    dtype: str
    gflops: dict[str, float]
    advice: tuple[str, ...]


def describe_device() -> DeviceReport:
    """Look at the best device and measure it for well under a second a type."""
    features = cpu_features()
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    on_cpu = device.type == "cpu"
    dtype = choose_dtype("auto", device.type, features)
    measured = {name: _gflops(device, name) for name in (torch.float32, torch.bfloat16)}
    return DeviceReport(
        device=str(device),
        name=cpu_name() if on_cpu else torch.cuda.get_device_name(device),
        num_cores=features.num_cores,
        features=features.names,
        dtype=str(dtype).removeprefix("torch."),
        gflops={str(kind).removeprefix("torch."): rate for kind, rate in measured.items()},
        advice=advice(features, on_cpu=on_cpu),
    )


def advice(features: CpuFeatures, *, on_cpu: bool) -> tuple[str, ...]:
    """Say what would make a machine faster."""
    if not on_cpu:
        return ()
    found = []
    if not features.fast_bfloat16:
        found.append(
            "This CPU has neither AMX-BF16 nor AVX512-BF16, so float32 is used. A CPU with AMX, "
            "or a GPU, runs bfloat16 several times faster, in half the memory."
        )
    if not features.avx512 and not features.avx2:
        found.append("This CPU has no AVX2: expect a fraction of the usual speed.")
    return tuple(found)


@torch.inference_mode()
def _gflops(device: torch.device, dtype: torch.dtype) -> float:
    x = torch.ones(_TOKENS, _WIDTH_IN, dtype=dtype, device=device)
    weight = torch.ones(_WIDTH_OUT, _WIDTH_IN, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(_REPEATS):
        started = time.perf_counter()
        F.linear(x, weight)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * _TOKENS * _WIDTH_IN * _WIDTH_OUT / best / 1e9
