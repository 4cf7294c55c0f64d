"""What `doctor` makes of a machine's facts."""

import pytest

from embedfleet.cli.findings import (
    Cpu,
    Gpu,
    cpu_findings,
    flag_findings,
    gpu_findings,
    memory_finding,
    port_finding,
    speed_finding,
    version_finding,
)

GIB = 2**30


@pytest.mark.parametrize(
    ("usable_cores", "has_gpu", "advised"),
    [(8, False, []), (2, False, ["CPU"]), (2, True, [])],
    ids=["all is well", "held to two cores", "a GPU does the work"],
)
def test_cores_held_back(usable_cores, has_gpu, advised):
    cpu = Cpu("Xeon", usable_cores, 8, ("amx_bf16", "avx2"))
    assert [found.name for found in cpu_findings(cpu, has_gpu) if found.advice] == advised


def test_speed_is_told_with_what_would_be_faster():
    found = speed_finding(
        "cpu", "float32", {"float32": 1234.5, "bfloat16": 2.4}, ("Take a GPU.", "Take two.")
    )
    assert found.value == "cpu in float32; GFLOP/s: float32 1,234, bfloat16 2"
    assert found.advice == "Take a GPU. Take two."


@pytest.mark.parametrize(
    ("gpus", "torch_cuda", "driver", "value", "advice"),
    [
        ((Gpu("H200", 139 * GIB),), "12.8", True, "H200, 139 GiB", ""),
        ((), "", True, "none", "install a CUDA build"),
        ((), "12.8", True, "none", "nvidia-smi"),
        ((), "12.8", False, "none", "UV_TORCH_BACKEND=cpu"),
        ((), "", False, "none", ""),
    ],
)
def test_why_no_gpu_is_used(gpus, torch_cuda, driver, value, advice):
    (found,) = gpu_findings(gpus, torch_cuda, driver)
    assert found.value == value
    assert advice in found.advice
    assert bool(advice) == bool(found.advice)


@pytest.mark.parametrize(
    ("gib", "dtype", "value"),
    [
        # 0.6, 4.0 and 7.6 billion parameters (model cards), times bytes each, times 1.3.
        (2, "float32", "2.0 GiB free"),
        (4, "float32", "4.0 GiB free; one replica fits of: 0.6B"),
        (12, "bfloat16", "12.0 GiB free; one replica fits of: 0.6B, 4B"),
        (64, "float32", "64.0 GiB free; one replica fits of: 0.6B, 4B, 8B"),
    ],
)
def test_which_sizes_fit_into_memory(gib, dtype, value):
    found = memory_finding(gib * GIB, dtype)
    assert found.value == value
    assert bool(found.advice) == (gib == 2)


def test_a_missing_package_keeps_a_fleet_from_starting():
    assert version_finding("ray", None).blocks
    assert not version_finding("ray", "2.60.0").blocks


def test_a_taken_port_names_the_way_out():
    assert "--port 0" in port_finding(9000, free=False).advice
    assert port_finding(9000, free=True).advice == ""


def test_flags_that_differ_are_pointed_out():
    wanted = {"A": "1", "B": "1", "C": "1"}
    findings = flag_findings(wanted, {"A": "1", "B": "0"})
    assert [(found.name, found.value) for found in findings] == [("A", "1"), ("B", "1"), ("C", "1")]
    assert [found.name for found in findings if found.advice] == ["B"]
