"""RAPL's counters: which are read, how they wrap, and what is said where they tell nothing."""

from __future__ import annotations

import os
import shlex
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llenergymeasure.config.energy_sources import ENERGY_SOURCES
from llenergymeasure.config.plugins import load_object
from llenergymeasure.core.energy.estimation.sensor import CounterReadings, unwrap
from llenergymeasure.core.energy.protocol import SamplingRates
from llenergymeasure.core.energy.rapl import (
    RaplSource,
    counter_fault,
    cpu_coverage,
    domain_energy,
)
from llenergymeasure.core.energy.rapl_reader import CHANNEL, RaplReader, find_domains
from llenergymeasure.core.energy.sampler import Recorded
from llenergymeasure.domain.energy import Reading, SamplingCost
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.samples import Window
from tests.support.powercap import (
    EPYC_RANGE_UJ,
    INTEL_RANGE_UJ,
    make_package,
    make_zone,
    overwrite,
)

CPU, GPU = DeviceTarget("cpu"), DeviceTarget("gpu", ("GPU-a",))
MS = 1_000_000
COST = SamplingCost(reads=0, mean_read_ms=None, p99_read_ms=None, cpu_seconds=0.0)


def names(root: Path) -> list[str]:
    return [domain.name for domain in find_domains(root)]


def test_packages_and_their_memory_are_read_and_nothing_that_they_hold(tmp_path):
    make_package(tmp_path, 0, "core", "uncore", "dram")
    make_package(tmp_path, 1, "core", "uncore", "dram")

    assert names(tmp_path) == ["package-0", "package-1", "dram-0", "dram-1"]


def test_psys_beside_or_inside_a_package_is_left_out(tmp_path):
    make_package(tmp_path, 0, "psys", "dram")
    make_zone(tmp_path, "intel-rapl:1", "psys")
    make_zone(tmp_path / "intel-rapl:1", "intel-rapl:1:0", "dram")

    assert names(tmp_path) == ["package-0", "dram-0"]


def test_the_same_package_shown_twice_is_read_once(tmp_path):
    make_package(tmp_path, 0, "dram")
    make_zone(tmp_path, "intel-rapl:1", "package-0")
    make_zone(tmp_path, "intel-rapl-mmio:0", "package-0")
    (tmp_path / "intel-rapl").mkdir()
    (tmp_path / "intel-rapl:0:0").symlink_to(tmp_path / "intel-rapl:0" / "intel-rapl:0:0")

    assert names(tmp_path) == ["package-0", "dram-0"]


def test_memory_that_shows_only_beside_its_package_is_found(tmp_path):
    make_package(tmp_path, 0)
    make_package(tmp_path, 10)
    make_zone(tmp_path, "intel-rapl:0:0", "dram")
    make_zone(tmp_path, "intel-rapl:10:0", "dram")

    assert names(tmp_path) == ["package-0", "package-10", "dram-0", "dram-10"]


def test_dies_of_a_socket_have_counters_of_their_own(tmp_path):
    make_zone(tmp_path, "intel-rapl:0", "package-0-die-0")
    make_zone(tmp_path, "intel-rapl:1", "package-0-die-1")
    make_zone(tmp_path / "intel-rapl:1", "intel-rapl:1:0", "dram")

    assert names(tmp_path) == ["package-0-die-0", "package-0-die-1", "dram-0-die-1"]
    assert cpu_coverage(tmp_path).scope == "CPU package, 1 socket, and DRAM of 1 of 2 packages"


@pytest.mark.parametrize(
    ("packages", "inner", "scope"),
    [
        (1, ("core", "dram"), "CPU package and DRAM, 1 socket"),
        (2, ("dram",), "CPU package and DRAM, 2 sockets"),
        (
            1,
            ("core",),
            "CPU package only, 1 socket; no counter of DRAM here, so memory is not in it",
        ),
    ],
)
def test_the_scope_says_what_is_covered(tmp_path, packages, inner, scope):
    for number in range(packages):
        make_package(tmp_path, number, *inner)

    coverage = cpu_coverage(tmp_path)
    assert (coverage.kind, coverage.scope, coverage.remedy) == ("measured", scope, "")


def test_work_on_a_gpu_is_not_covered():
    coverage = RaplSource.coverage(GPU)

    assert coverage.kind is None
    assert "no device that did the work" in coverage.scope
    assert "zeus, nvml or codecarbon" in coverage.remedy


def test_a_machine_without_counters_is_told_why(tmp_path):
    for root in (tmp_path, tmp_path / "absent"):
        coverage = cpu_coverage(root)
        assert coverage.kind is None
        assert "virtual machines have none" in coverage.scope
        assert coverage.remedy


@pytest.mark.parametrize("content", ["", "many", "0"])
def test_a_zone_whose_range_is_unknown_is_not_used(tmp_path, content):
    make_package(tmp_path, 0)
    (tmp_path / "intel-rapl:0" / "max_energy_range_uj").write_text(content)

    assert cpu_coverage(tmp_path).kind is None


def test_one_closed_counter_of_many_closes_the_source_and_the_remedy_opens_it(tmp_path):
    make_package(tmp_path, 0, "dram")
    closed = str(tmp_path / "intel-rapl:0" / "intel-rapl:0:0" / "energy_uj")
    coverage = cpu_coverage(tmp_path, readable=lambda path: path != closed)

    assert coverage.kind is None
    assert closed in coverage.scope
    assert "since 5.10" in coverage.scope
    assert "PLATYPUS" in coverage.scope
    assert coverage.remedy == f"sudo chmod a+r {shlex.quote(str(tmp_path))}/intel-rapl:*/energy_uj"


def test_polls_are_never_so_rare_that_a_wrap_could_hide(tmp_path):
    make_package(tmp_path, 0, range_uj=EPYC_RANGE_UJ)

    assert RaplReader(str(tmp_path), poll_s=0.005).cadence.period_s == 0.005
    assert RaplReader(str(tmp_path), poll_s=600.0).cadence.period_s < EPYC_RANGE_UJ / 1e6 / 2000


def test_a_reader_without_counters_cannot_be_made(tmp_path):
    with pytest.raises(FileNotFoundError, match="no RAPL counters"):
        RaplReader(str(tmp_path), 0.005)


def test_a_counter_that_cannot_be_read_is_named_until_it_can_be_read_again(tmp_path):
    _, memory = make_package(tmp_path, 0, "dram")
    reader = RaplReader(str(tmp_path), 0.005)
    reader.begin()
    memory.rename(memory.with_name("gone"))
    assert [row.device for row in reader.poll()] == ["package-0"]
    assert "No such file" in reader.end()["failing"]["dram-0"][CHANNEL]

    memory.write_text("garbage")
    list(reader.poll())
    assert "garbage" in reader.end()["failing"]["dram-0"][CHANNEL]

    overwrite(memory, 5)
    assert [row.value for row in reader.poll()] == [1_000_000.0, 5.0]
    assert not any(reader.end()["failing"].values())


def taken(values: list[int], step_ms: float = 5.0) -> CounterReadings:
    at_ns = np.array([round(index * step_ms * MS) for index in range(len(values))])
    return CounterReadings(at_ns, at_ns + MS // 50, np.array(values, dtype=np.int64), 1e-6)


def rising(start_uj: int, watts: float, count: int, range_uj: int) -> list[int]:
    return [(start_uj + round(watts * 5000 * index)) % range_uj for index in range(count)]


@pytest.mark.parametrize("range_uj", [INTEL_RANGE_UJ, EPYC_RANGE_UJ])
def test_a_wrap_in_the_window_changes_nothing(range_uj):
    window = Window(100 * MS, 900 * MS)
    plain = domain_energy(taken(rising(range_uj // 2, 300, 201, range_uj)), range_uj, window)
    wrapped = taken(rising(range_uj - 100_000_000, 300, 201, range_uj))
    estimate = domain_energy(wrapped, range_uj, window)

    assert counter_fault(wrapped, range_uj) is None
    assert estimate.energy_j == pytest.approx(240.0, abs=1e-6)
    assert estimate.energy_j == pytest.approx(plain.energy_j, abs=1e-6)
    assert estimate.kind == "measured"
    assert estimate.interval95_j < 4.0


def test_hours_of_wraps_are_exact_to_a_microjoule():
    watts, count, step_ms = 280.0, 3_600, 10_000.0
    step_uj = round(watts * step_ms * 1000)
    values = [index * step_uj % EPYC_RANGE_UJ for index in range(count)]
    readings = taken(values, step_ms)
    first, last = 3, count - 4
    window = Window(int(readings.after_ns[first]) - MS, int(readings.after_ns[last]) - MS)

    assert sum(later < earlier for earlier, later in pairwise(values)) > 150
    assert counter_fault(readings, EPYC_RANGE_UJ) is None
    estimate = domain_energy(readings, EPYC_RANGE_UJ, window)
    assert round(estimate.energy_j * 1e6) == pytest.approx((last - first) * step_uj, abs=1)


@given(
    start_uj=st.integers(0, EPYC_RANGE_UJ - 1),
    steps_uj=st.lists(st.integers(0, 400_000_000), min_size=2, max_size=200),
)
def test_unwrapping_gives_back_every_microjoule(start_uj, steps_uj):
    total_uj = [start_uj + int(passed) for passed in np.cumsum([0, *steps_uj])]
    readings = taken([value % EPYC_RANGE_UJ for value in total_uj])
    if any(steps_uj):
        assert counter_fault(readings, EPYC_RANGE_UJ) is None
    unwrapped = unwrap(readings.value, EPYC_RANGE_UJ)
    assert (unwrapped - unwrapped[0]).tolist() == [value - start_uj for value in total_uj]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([10_000_000, 11_000_000, 500, 1_000_500], "which is no wrap"),
        ([10_000_000, 11_000_000, 10_999_999, 12_000_000], "which is no wrap"),
        ([10_000_000, 11_000_000, 9_000_000_000, 9_001_000_000], "leapt"),
        ([10_000_000, INTEL_RANGE_UJ + 1], "left its range"),
        ([10_000_000, -1], "left its range"),
        ([10_000_000, 10_000_000, 10_000_000], "did not move"),
    ],
)
def test_a_counter_that_cannot_be_true_tells_no_energy(values, reason):
    assert reason in counter_fault(taken(values), INTEL_RANGE_UJ).reason
    recording = record(values)
    assert recording.total_j is None
    assert recording.kind == "unmeasurable"
    assert reason in recording.notes[0]
    assert len(recording.notes) == 1
    assert recording.flags == (("counter_reset",) if "wrap" in reason else ("counter_unusable",))


def test_a_gap_in_which_the_counter_may_have_wrapped_tells_no_energy():
    values = rising(0, 280, 10, EPYC_RANGE_UJ)

    assert counter_fault(taken(values, step_ms=30_000), EPYC_RANGE_UJ) is None
    assert "wrapped unseen" in counter_fault(taken(values, 40_000), EPYC_RANGE_UJ).reason


def test_a_counter_that_was_never_read_tells_no_energy():
    recording = record([], failing={"package-0": "[Errno 13] Permission denied"})

    assert recording.total_j is None
    assert recording.notes[0] == (
        "package-0: its counter cannot be read: [Errno 13] Permission denied"
    )
    assert "never read" in record([]).notes[0]


def test_one_unknown_counter_makes_the_total_unknown_but_not_the_other_counter():
    readings = readings_of("package-0", rising(5, 100, 201, INTEL_RANGE_UJ))
    ranges = {"package-0": INTEL_RANGE_UJ, "dram-0": INTEL_RANGE_UJ}
    recording = recorded(readings, ranges, {"dram-0": "[Errno 19] No such device"})

    assert recording.total_j is None
    assert recording.interval_j is None
    package, memory = recording.components
    assert package.energy_j == pytest.approx(80.0, rel=1e-3)
    assert (memory.energy_j, memory.kind) == (None, "unmeasurable")


def test_two_sockets_add_up_and_their_interval_is_no_wider_than_the_sum_of_both():
    power_w = {"package-0": 200.0, "package-1": 100.0, "dram-0": 10.0, "dram-1": 5.0}
    readings = [
        reading
        for name, watts in power_w.items()
        for reading in readings_of(name, rising(7, watts, 201, INTEL_RANGE_UJ))
    ]
    recording = recorded(readings, dict.fromkeys(power_w, INTEL_RANGE_UJ))

    assert recording.total_j == pytest.approx(315.0 * 0.8, rel=1e-4)
    assert [part.name for part in recording.components] == list(power_w)
    assert {part.kind for part in recording.components} == {"measured"}
    assert all(part.in_scope for part in recording.components)
    assert 0 < recording.interval_j < 0.02 * recording.total_j
    assert recording.notes == recording.flags == ()
    assert all(part.interval95_j > 0 and part.budget for part in recording.components)


def readings_of(name: str, values: list[int]) -> list[Reading]:
    columns = taken(values) if values else None
    if columns is None:
        return []
    rows = zip(columns.before_ns, columns.after_ns, columns.value, strict=True)
    return [Reading("cpu_energy_uj", name, int(b), int(a), float(v)) for b, a, v in rows]


def record(values: list[int], failing: dict[str, str] | None = None):
    return recorded(readings_of("package-0", values), {"package-0": INTEL_RANGE_UJ}, failing)


def recorded(
    readings: list[Reading], range_uj: dict[str, int], failing: dict[str, str] | None = None
):
    lost = {name: {CHANNEL: reason} for name, reason in (failing or {}).items()}
    summary = {
        "offered": {name: [CHANNEL] for name in range_uj},
        "refused": {name: {} for name in range_uj},
        "failing": {name: lost.get(name, {}) for name in range_uj},
        "range_uj": range_uj,
    }
    window = Window(100 * MS, 900 * MS)
    source = RaplSource(CPU, SamplingRates())
    return source.recording(Recorded(tuple(readings), summary, COST, window), window)


def test_the_registry_names_it():
    assert load_object(ENERGY_SOURCES["rapl"].implementation) is RaplSource


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_counter_that_only_root_may_read_is_closed(tmp_path):
    (package,) = make_package(tmp_path, 0)
    package.chmod(0)

    assert cpu_coverage(tmp_path).kind is None
