"""Decides where a model runs and in which type, by facts of the machine.

bfloat16 is only fast on CPUs with AMX-BF16 or AVX512-BF16: elsewhere it is emulated, several times
slower than float32. float16 overflows in one published shape, so that pair is refused.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

import torch

from embedfleet.catalog import PUBLISHED
from embedfleet.checkpoint.config import ModelConfig
from embedfleet.engine.torch.options import EngineOptions
from embedfleet.errors import InvalidRequest

__all__ = ["CpuFeatures", "Placement", "choose_dtype", "cpu_features", "cpu_name", "resolve"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_FLOAT16_OVERFLOWS = {
    (model.native_dimension, model.num_layers) for model in PUBLISHED if model.float16_overflows
}


@dataclass(frozen=True, slots=True)
class CpuFeatures:
    """What the CPU has for matrix products, and cores this process may use."""

    num_cores: int
    amx_bf16: bool
    avx512_bf16: bool
    avx512: bool
    avx2: bool

    @property
    def fast_bfloat16(self) -> bool:
        """Whether bfloat16 products run in hardware."""
        return self.amx_bf16 or self.avx512_bf16

    @property
    def names(self) -> tuple[str, ...]:
        """Features present, best first."""
        names = ("amx_bf16", "avx512_bf16", "avx512", "avx2")
        return tuple(name for name in names if getattr(self, name))


@dataclass(frozen=True, slots=True)
class Placement:
    """Options after the machine had its say."""

    device: torch.device
    dtype: torch.dtype
    num_threads: int

    @property
    def dtype_name(self) -> str:
        """Such as `bfloat16`."""
        return str(self.dtype).removeprefix("torch.")


def cpu_features() -> CpuFeatures:
    """Read what this CPU has; the operating system must have enabled it too."""
    found = torch.cpu.get_capabilities()
    return CpuFeatures(
        num_cores=len(os.sched_getaffinity(0)),
        amx_bf16=bool(found.get("amx_bf16") and found.get("amx_tile")),
        avx512_bf16=bool(found.get("avx512_bf16")),
        avx512=bool(found.get("avx512_f") and found.get("avx512_bw")),
        avx2=bool(found.get("avx2")),
    )


def cpu_name() -> str:
    """Give the processor as its maker calls it, or its architecture where nothing says."""
    return str(torch.cpu.get_capabilities().get("cpu_name") or platform.machine())


def resolve(options: EngineOptions, config: ModelConfig) -> Placement:
    """Turn `auto` into facts.

    Raises:
        InvalidRequest: The machine or the model cannot do what the options ask.
    """
    device = _choose_device(options.device)
    features = cpu_features()
    dtype = choose_dtype(options.dtype, device.type, features)
    shape = (config.hidden_size, config.num_layers)
    if dtype == torch.float16 and shape in _FLOAT16_OVERFLOWS:
        raise InvalidRequest(
            f"dtype is float16, which overflows in this shape (hidden {shape[0]}, {shape[1]} "
            "layers): texts that start with 'import' become NaN. Use bfloat16 or float32.",
            field="dtype",
        )
    num_threads = features.num_cores if options.num_threads is None else options.num_threads
    if num_threads < 1:
        raise InvalidRequest(
            f"num_threads is {num_threads}; at least 1 is needed. Leave it out to use the "
            f"{features.num_cores} cores of this process.",
            field="num_threads",
        )
    return Placement(device, dtype, num_threads)


def _choose_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind == "cpu" and not index:
        return torch.device("cpu")
    if kind != "cuda" or (":" in name and not index.isdecimal()):
        raise InvalidRequest(
            f"device is {name!r}; known are auto, cpu, cuda and cuda:N. Use auto if unsure.",
            field="device",
        )
    count = torch.cuda.device_count()
    if int(index or 0) >= count:
        raise InvalidRequest(
            f"device is {name}, but {count} CUDA devices are visible here. Use cpu, or check the "
            "driver with nvidia-smi.",
            field="device",
        )
    return torch.device("cuda", int(index or 0))


def choose_dtype(name: str, device_type: str, features: CpuFeatures) -> torch.dtype:
    """Pick the type of the matrix products.

    Raises:
        InvalidRequest: The type is unknown, or not offered on this device.
    """
    if name == "auto":
        fast = device_type == "cuda" or features.fast_bfloat16
        return torch.bfloat16 if fast else torch.float32
    if name not in _DTYPES:
        raise InvalidRequest(
            f"dtype is {name!r}; known are auto, {', '.join(_DTYPES)}. Use auto if unsure.",
            field="dtype",
        )
    if name == "float16" and device_type == "cpu":
        raise InvalidRequest(
            "dtype is float16, which no CPU kernel here is fast or exact in. Use float32, or "
            "bfloat16 where the CPU has AMX-BF16 or AVX512-BF16.",
            field="dtype",
        )
    return _DTYPES[name]
