"""Zeus's device layer as readings, with a layer of the real signatures in its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from llenergymeasure.config.energy_sources import ENERGY_SOURCES
from llenergymeasure.config.plugins import load_object
from llenergymeasure.core.energy.cadence import Cadence
from llenergymeasure.core.energy.protocol import Coverage, SamplingRates
from llenergymeasure.core.energy.sampler import Recorded
from llenergymeasure.core.energy.sampling_child import Row
from llenergymeasure.core.energy.zeus import ZeusSource, gpu_coverage
from llenergymeasure.core.energy.zeus_reader import Device, Layer, ZeusReader, chosen
from llenergymeasure.core.gpu_survey import GPUSurvey
from llenergymeasure.domain.energy import Reading, SamplingCost
from llenergymeasure.domain.environment import DeviceTarget, GPUInfo
from llenergymeasure.domain.samples import Window

MS = 1_000_000
WINDOW = Window(1000 * MS, 3000 * MS)
COST = SamplingCost(reads=0, mean_read_ms=None, p99_read_ms=None, cpu_seconds=0.0)


class ZeusError(Exception):
    """Stands for ZeusBaseGPUError."""


class FakeGPU:
    """Answers as ``zeus.device.gpu.common.GPU`` does; ``None`` is not supported."""

    def __init__(
        self,
        counter_mj: int | None = 5_000,
        instant_mw: int | None = 75_000,
        average_mw: int | None = 74_000,
        trusted: bool = True,
    ) -> None:
        self.trusted = trusted
        self.counter_mj, self.instant_mw, self.average_mw = counter_mj, instant_mw, average_mw

    def get_name(self) -> str:
        return "A GPU"

    def supports_get_total_energy_consumption(self) -> bool:
        return self.trusted

    def get_total_energy_consumption(self) -> int:
        return self._given(self.counter_mj)

    def get_instant_power_usage(self) -> int:
        return self._given(self.instant_mw)

    def get_average_power_usage(self) -> int:
        return self._given(self.average_mw)

    def _given(self, value: int | None) -> int:
        if value is None:
            raise ZeusError("Not Supported")
        return value


def layer(*gpus: FakeGPU, vendor: str = "nvidia") -> Layer:
    devices = tuple(Device(f"GPU-{n}", (f"serial{n}",), gpu) for n, gpu in enumerate(gpus))
    return Layer(vendor, devices, (ZeusError,))


def reader(*gpus: FakeGPU, uuids=(), power_poll_s=0.005) -> ZeusReader:
    return ZeusReader(uuids, 0.005, power_poll_s, layer(*gpus))


def polled(made: ZeusReader) -> list[tuple[str, str, float]]:
    return [tuple(row) for row in made.poll()]


def test_counter_and_power_are_read_in_joules_and_watts_by_their_names():
    made = reader(FakeGPU())

    assert made.cadence.period_s == 0.005
    assert polled(made) == [("gpu_energy_mj", "GPU-0", 5000.0), ("gpu_power_w", "GPU-0", 75.0)]


def test_power_is_read_with_the_counter():
    made = reader(FakeGPU(), power_poll_s=0.020)
    made.begin()
    counts = [len(polled(made)) for _ in range(9)]

    assert counts == [2] * 9


def test_only_the_devices_asked_for_are_read_in_the_order_asked_for():
    made = reader(FakeGPU(1), FakeGPU(2), FakeGPU(3), uuids=("GPU-2", "GPU-0"))

    counters = [row for row in polled(made) if row[0] == "gpu_energy_mj"]
    assert counters == [("gpu_energy_mj", "GPU-2", 3.0), ("gpu_energy_mj", "GPU-0", 1.0)]
    assert list(made.end()["offered"]) == ["GPU-2", "GPU-0"]


def test_a_device_that_zeus_does_not_see_is_refused():
    with pytest.raises(LookupError, match="no such GPU: GPU-9; it sees GPU-0"):
        reader(FakeGPU(), uuids=("GPU-9",))
    with pytest.raises(LookupError, match="sees no GPU"):
        reader()


def test_amd_devices_are_known_by_their_serial_or_by_being_all_there_are():
    two = layer(FakeGPU(), FakeGPU(), vendor="amd")

    assert [one.gpu for one in chosen(two, ("GPU-serial1",), {})] == [two.devices[1].gpu]
    assert chosen(two, ("GPU-x", "GPU-y"), {}) == two.devices
    with pytest.raises(LookupError):
        chosen(two, ("GPU-x",), {})
    with pytest.raises(LookupError):
        chosen(two._replace(vendor="nvidia"), ("GPU-x", "GPU-y"), {})


def test_a_device_without_a_counter_gives_power_and_one_without_that_a_mean_over_a_second():
    made = reader(FakeGPU(counter_mj=None), FakeGPU(instant_mw=None, trusted=False))

    assert polled(made) == [
        ("gpu_power_w", "GPU-0", 75.0),
        ("gpu_average_power_w", "GPU-1", 74.0),
    ]
    assert made.end()["refused"] == {
        "GPU-0": {"gpu_energy_mj": "Not Supported"},
        "GPU-1": {"gpu_energy_mj": "Zeus does not trust it", "gpu_power_w": "Not Supported"},
    }


def test_a_device_that_tells_nothing_cannot_be_read():
    with pytest.raises(LookupError, match="no GPU tells energy or power"):
        reader(FakeGPU(None, None, None))


def test_what_fails_is_named_until_it_answers_again():
    gpu = FakeGPU()
    made = reader(gpu)
    gpu.counter_mj = None
    assert [row[0] for row in polled(made)] == ["gpu_power_w"]
    assert made.end()["failing"] == {"GPU-0": {"gpu_energy_mj": "Not Supported"}}

    gpu.counter_mj = 6_000
    polled(made)
    assert made.end()["failing"] == {"GPU-0": {}}


def counter_rows(name: str, watts: float, at_ns=range(0, 4500 * MS, 5 * MS)) -> list[Reading]:
    """A counter with a tick of 100 ms."""
    return [
        Reading("gpu_energy_mj", name, at, at + MS // 10, 9e6 + watts * (at // (100 * MS)) * 100)
        for at in at_ns
    ]


def power_rows(name: str, watts: float) -> list[Reading]:
    return [
        Reading("gpu_power_w", name, at, at + MS // 10, watts + (at // (100 * MS)) % 2)
        for at in range(0, 4500 * MS, 20 * MS)
    ]


def recorded(rows: list[Reading], **summary):
    names = list(dict.fromkeys(row.device for row in rows))
    told = {
        "offered": {name: [] for name in names},
        "refused": {},
        "failing": {name: {} for name in names},
        "shared": {},
        "state": None,
    } | summary
    source = ZeusSource(DeviceTarget("gpu", tuple(names)), SamplingRates())
    return source.recording(Recorded(tuple(rows), told, COST, WINDOW), WINDOW)


def test_devices_add_up_and_stay_apart():
    recording = recorded(counter_rows("GPU-a", 300.0) + counter_rows("GPU-b", 100.0))

    assert recording.source == "zeus"
    assert recording.kind == "measured"
    assert recording.total_j == pytest.approx(800.0, rel=0.01)
    assert [round(part.energy_j) for part in recording.components] == [600, 200]
    assert recording.components[0].tick_ms == pytest.approx(100.0, rel=0.01)
    assert recording.components[0].method == "zeus: energy counter"
    assert recording.interval_j > 0


def test_without_a_counter_power_is_integrated_and_the_result_says_so():
    refused = {"GPU-a": {"gpu_energy_mj": "Zeus says there is none"}}
    recording = recorded(power_rows("GPU-a", 300.0), refused=refused)

    assert recording.total_j == pytest.approx(601.0, rel=0.02)
    assert "integrated_power" in recording.flags
    assert (
        "GPU-a: no energy counter (Zeus says there is none), so power is integrated instead"
        in recording.notes
    )


def test_a_counter_that_starts_again_gives_no_figure():
    rows = counter_rows("GPU-a", 300.0)
    fallen = [
        Reading(r.channel, r.device, r.before_ns, r.after_ns, r.value - 8_900_000)
        for r in rows
        if r.before_ns > 2000 * MS
    ]
    recording = recorded([r for r in rows if r.before_ns <= 2000 * MS] + fallen)

    assert recording.total_j is None
    assert recording.kind == "unmeasurable"
    assert "counter_reset" in recording.flags


def test_a_device_that_went_away_gives_no_figure_and_spoils_the_total_only():
    rows = counter_rows("GPU-a", 300.0) + counter_rows("GPU-b", 100.0)
    failing = {"GPU-a": {"gpu_energy_mj": "GPU is lost"}, "GPU-b": {}}
    recording = recorded(rows, failing=failing)

    assert recording.total_j is None
    assert recording.components[1].energy_j == pytest.approx(200.0, rel=0.01)
    assert recording.notes[0] == (
        "GPU-a: it no longer answered when the window ended (GPU is lost)"
    )


def test_power_that_fails_beside_a_sound_counter_is_only_noted():
    failing = {"GPU-a": {"gpu_power_w": "Timeout"}}
    recording = recorded(counter_rows("GPU-a", 300.0), failing=failing)

    assert recording.total_j == pytest.approx(600.0, rel=0.01)
    assert "GPU-a: power no longer answered (Timeout)" in recording.notes


def test_readings_of_more_than_the_device_are_named():
    shared = {"GPU-a": "the whole Grace Hopper module, CPU included"}
    recording = recorded(counter_rows("GPU-a", 300.0), shared=shared)

    assert any("whole Grace Hopper module" in note for note in recording.notes)


def test_where_nothing_tells_the_state_of_a_device_the_result_says_so():
    recording = recorded(counter_rows("GPU-a", 300.0))

    assert recording.device_state == ()
    assert "processes_unknown" in recording.flags
    assert any("only NVML tells them" in note for note in recording.notes)


class CountedState:
    """A reader of state that counts what is asked of it."""

    def __init__(self) -> None:
        self.cadence = Cadence(0.02)
        self.polls = 0

    def begin(self) -> None:
        self.polls = 0

    def poll(self):
        self.polls += 1
        yield Row("gpu_temperature_c", "GPU-0", 40.0)

    def end(self) -> dict[str, int]:
        return {"polls": self.polls}

    def close(self) -> None:
        pass


def test_state_is_read_with_power_and_handed_on():
    made = ZeusReader((), 0.005, 0.020, layer(FakeGPU()), CountedState())
    made.begin()
    rows = [row for _ in range(9) for row in polled(made)]

    assert [row[0] for row in rows].count("gpu_temperature_c") == 3
    assert made.end()["state"] == {"polls": 3}


def gpu(uuid: str, mig: bool = False) -> GPUInfo:
    return GPUInfo(index=0, uuid=uuid, name="A100", mig_mode=mig)


def answering(wanted: Sequence[str]) -> Coverage:
    return Coverage("measured", f"tried {', '.join(wanted)}")


def covering(uuids: tuple[str, ...], *gpus: GPUInfo, **environ: str) -> Coverage:
    return gpu_coverage(uuids, GPUSurvey(gpus=gpus), environ, answering)


def test_the_devices_that_do_the_work_must_be_seen_and_answer():
    two = (gpu("GPU-a"), gpu("GPU-b"))

    assert covering(("GPU-a",), *two).scope == "tried GPU-a"
    unseen = covering(("GPU-c",), *two)
    assert unseen.kind is None
    assert "no such GPU: GPU-c" in unseen.scope
    silent = gpu_coverage(("GPU-a",), GPUSurvey(gpus=two), {}, lambda _: Coverage(None, "silent"))
    assert (silent.kind, silent.scope) == (None, "silent")


def test_of_unnamed_devices_those_count_that_cuda_would_see():
    two = (gpu("GPU-a"), gpu("GPU-b"))

    assert covering((), *two).scope == "tried GPU-a, GPU-b"
    assert covering((), *two, CUDA_VISIBLE_DEVICES="GPU-b").scope == "tried GPU-b"
    doubtful = covering((), *two, CUDA_VISIBLE_DEVICES="1")
    assert doubtful.kind is None
    assert "CUDA_DEVICE_ORDER" in doubtful.scope


def test_the_reader_reads_of_unnamed_devices_those_that_cuda_would_see():
    two = layer(FakeGPU(), FakeGPU())
    by_bus = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1"}

    assert [one.name for one in chosen(two, (), by_bus)] == ["GPU-1"]
    with pytest.raises(LookupError, match="CUDA_DEVICE_ORDER"):
        chosen(two, (), {"CUDA_VISIBLE_DEVICES": "1"})
    with pytest.raises(LookupError, match="HIP_VISIBLE_DEVICES"):
        chosen(two._replace(vendor="amd"), (), {"HIP_VISIBLE_DEVICES": "1"})


def test_a_slice_has_no_energy_of_its_own():
    for uuids, gpus in [
        (("GPU-MIG-a",), ()),
        (("GPU-a",), (gpu("GPU-a", mig=True),)),
        ((), (gpu("GPU-a", mig=True),)),
    ]:
        coverage = covering(uuids, *gpus)
        assert coverage.kind is None
        assert "no energy of its own" in coverage.scope
    assert covering(("GPU-a",), gpu("GPU-a"), gpu("GPU-b", mig=True)).kind == "measured"


def test_work_on_a_cpu_is_not_covered():
    coverage = ZeusSource.coverage(DeviceTarget("cpu"))

    assert coverage.kind is None
    assert "no device that did the work" in coverage.scope
    assert "rapl" in coverage.remedy


def test_the_registry_names_it_and_its_package():
    entry = ENERGY_SOURCES["zeus"]

    assert load_object(entry.implementation) is ZeusSource
    assert (entry.package, entry.minimum) == ("zeus", "0.13")
    extras = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'zeus = ["{entry.package}>={entry.minimum},<1"]' in extras
