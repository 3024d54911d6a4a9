"""What the node says of its accelerators and of itself: only what it was told."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from node_agent.core.report import Gpu, GpuSample
from node_agent.probes.gpu import GpuProbe
from node_agent.probes.host import HostProbe
from tests.fakes.nvml import Device, FakeNvml


def test_without_a_driver_there_are_no_accelerators_and_no_samples() -> None:
    probe = GpuProbe(FakeNvml([Device("GPU-1")], driver=False))
    assert (probe.inventory(), probe.sample()) == ((), ())


def test_the_inventory_and_the_samples_are_what_the_driver_tells() -> None:
    probe = GpuProbe(FakeNvml([Device(b"GPU-1", name=b"NVIDIA H100")]))
    assert probe.inventory() == (
        Gpu(uuid="GPU-1", name="NVIDIA H100", memory_bytes=24 << 30, compute_capability="8.9"),
    )
    assert probe.sample() == (
        GpuSample(
            uuid="GPU-1",
            utilization_percent=40,
            memory_used_bytes=1 << 30,
            memory_total_bytes=24 << 30,
            temperature_celsius=55,
            power_watts=70.5,
        ),
    )


def test_what_a_device_does_not_tell_is_absent() -> None:
    silent = Device("GPU-1", None, None, None, None, None, None)
    probe = GpuProbe(FakeNvml([silent]))
    assert probe.inventory() == (Gpu(uuid="GPU-1", name="", memory_bytes=0),)
    assert probe.sample() == (GpuSample(uuid="GPU-1"),)


def test_a_device_that_fell_off_the_bus_does_not_hide_the_others() -> None:
    probe = GpuProbe(FakeNvml([Device("GPU-1", lost=True), Device("GPU-2")]))
    assert [gpu.uuid for gpu in probe.inventory()] == ["GPU-2"]
    assert [gpu.uuid for gpu in probe.sample()] == ["GPU-2"]


def test_nonsense_from_a_driver_is_clamped() -> None:
    probe = GpuProbe(
        FakeNvml([Device("GPU-1", memory=(9, 8), utilization=4_000, temperature=-300, milliwatts=-5)])
    )
    (sample,) = probe.sample()
    assert (sample.memory_used_bytes, sample.memory_total_bytes) == (8, 8)
    assert (sample.utilization_percent, sample.temperature_celsius, sample.power_watts) == (100, -50, 0)


def test_a_driver_that_comes_back_is_asked_again() -> None:
    library = FakeNvml([Device("GPU-1")])
    probe = GpuProbe(library)
    assert len(probe.sample()) == 1
    library.driver = False
    assert probe.sample() == ()
    library.driver = True
    assert len(probe.sample()) == 1
    assert library.inits == 2


def test_without_a_driver_its_module_is_not_even_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    probe = GpuProbe(driver="libno-such-driver.so.1")
    assert (probe.inventory(), probe.sample(), "pynvml" in sys.modules) == ((), (), False)


def test_a_driver_that_is_installed_while_we_run_is_found() -> None:
    probe = GpuProbe(driver="libno-such-driver.so.1")
    assert probe.inventory() == ()
    probe.driver = "libc.so.6"  # any library: the module finds out for itself whether there is a driver
    probe.inventory()
    assert probe.library.__name__ == "pynvml"


def test_the_real_library_answers_or_there_is_no_driver() -> None:
    probe = GpuProbe()
    assert {gpu.uuid for gpu in probe.inventory()} == {sample.uuid for sample in probe.sample()}


def test_the_host_is_read_from_the_kernel(tmp_path: Path) -> None:
    probe = HostProbe(tmp_path)
    gpu = Gpu(uuid="GPU-1", name="x", memory_bytes=1)
    hardware, sample = probe.hardware((gpu,)), probe.sample()
    assert hardware.hostname
    assert hardware.os
    assert hardware.arch
    assert hardware.cpu_count >= 1
    assert hardware.gpus == (gpu,)
    assert 0 < sample.memory_used_bytes <= sample.memory_total_bytes == hardware.memory_bytes
    assert 0 < sample.disk_used_bytes <= sample.disk_total_bytes == hardware.disk_bytes


def test_the_cpus_share_is_told_once_there_is_one_and_never_made_up(tmp_path: Path) -> None:
    probe = HostProbe(tmp_path)
    assert probe.sample().cpu_percent is None
    with ThreadPoolExecutor(1) as elsewhere:  # readings are taken in whatever thread is free
        share: float | None = None
        while share is None:
            sum(range(100_000))  # this keeps a core busy, so that the share cannot be nothing
            share = elsewhere.submit(probe.sample).result().cpu_percent
    assert 0 < share <= 100
    assert probe.sample().cpu_percent is None


@pytest.mark.parametrize("text", ["max\n", "", "nonsense"])
def test_a_container_without_a_memory_limit_has_the_machines_memory(tmp_path: Path, text: str) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text(text)
    assert HostProbe(tmp_path, limit).hardware() == HostProbe(tmp_path, tmp_path / "absent").hardware()


def test_a_containers_memory_limit_is_all_there_is(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text("1048576\n")
    probe = HostProbe(tmp_path, limit)
    assert probe.hardware().memory_bytes == 1048576
    assert probe.sample().memory_used_bytes <= 1048576
