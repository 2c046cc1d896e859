"""What the NVML reader makes of drivers and processes that no simulated device shows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pynvml
import pytest

from llenergymeasure.core.energy.gpus import device_states, foreign_pids
from llenergymeasure.core.energy.nvml_reader import (
    CLOCK_EVENTS,
    COUNTER,
    POWER,
    PROCESSES,
    NVMLReader,
    kin,
    pids_are_of_the_host,
    visible_uuids,
)
from llenergymeasure.core.visible_gpus import counted_uuids
from llenergymeasure.domain.samples import Window

ALL = ("GPU-aaaa-1", "GPU-aaab-2", "GPU-cccc-3")
BY_BUS = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
FASTEST = {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}


class Driver:
    """A driver with one device, behind the real module's constants, errors and signatures."""

    def __init__(self, **failures: int) -> None:
        self.failures = failures
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith(("nvmlInit", "nvmlShutdown", "nvmlDevice")):
            return getattr(pynvml, name)
        assert hasattr(pynvml, name)

        def answer(*arguments: object) -> Any:
            self.calls.append(name)
            if name in self.failures:
                raise pynvml.NVMLError(self.failures[name])
            return self._value(name)

        return answer

    @staticmethod
    def _value(name: str) -> Any:
        if name == "nvmlDeviceGetFieldValues":
            return [pynvml.c_nvmlFieldValue_t()]
        if name == "nvmlDeviceGetComputeRunningProcesses":
            return []
        return 1

    def poll(self, reader: NVMLReader) -> list[str]:
        self.calls.clear()
        return [row.channel for row in reader.poll()]


def reader(driver: Driver) -> NVMLReader:
    return NVMLReader(["GPU-a"], 0.005, 0.02, nvml=driver)


def test_counters_are_read_at_every_poll_power_at_some_and_processes_at_few() -> None:
    driver = Driver()
    made = reader(driver)
    made.begin()
    polls = [driver.poll(made) for _ in range(100)]

    assert made.cadence.period_s == 0.005
    assert all(channels[0] == COUNTER for channels in polls)
    assert [i for i, channels in enumerate(polls) if CLOCK_EVENTS in channels] == [
        *range(0, 100, 4)
    ]
    assert [i for i, channels in enumerate(polls) if PROCESSES in channels] == [0, 50]


def test_without_any_counter_power_is_read_at_every_poll() -> None:
    driver = Driver(nvmlDeviceGetTotalEnergyConsumption=pynvml.NVML_ERROR_NOT_SUPPORTED)
    made = reader(driver)
    assert made.cadence.period_s == 0.005
    polls = [driver.poll(made) for _ in range(8)]
    assert all(channels[0] == POWER for channels in polls)
    assert [i for i, channels in enumerate(polls) if CLOCK_EVENTS in channels] == [0, 4]


def test_a_driver_that_has_only_the_older_name_of_clock_events_is_asked_by_it() -> None:
    driver = Driver(nvmlDeviceGetCurrentClocksEventReasons=pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    made = reader(driver)
    assert CLOCK_EVENTS in driver.poll(made)
    assert "nvmlDeviceGetCurrentClocksThrottleReasons" in driver.calls
    assert "nvmlDeviceGetCurrentClocksEventReasons" not in driver.calls


def test_what_fails_at_first_but_might_come_back_is_asked_again() -> None:
    driver = Driver(nvmlDeviceGetTotalEnergyConsumption=pynvml.NVML_ERROR_TIMEOUT)
    made = reader(driver)
    made.begin()
    assert COUNTER not in driver.poll(made)
    assert made.end()["failing"]["GPU-a"] == {COUNTER: "Timeout"}
    driver.failures.clear()
    assert COUNTER in driver.poll(made)
    assert made.end()["failing"]["GPU-a"] == {}


def test_one_client_stays_from_start_to_end() -> None:
    driver = Driver()
    made = reader(driver)
    made.begin()
    driver.poll(made)
    assert "nvmlShutdown" not in driver.calls
    made.close()
    assert driver.calls[-1] == "nvmlShutdown"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ALL),
        ({"CUDA_VISIBLE_DEVICES": "2,0,1"}, (ALL[2], ALL[0], ALL[1])),
        ({"CUDA_VISIBLE_DEVICES": "GPU-aaab"}, (ALL[1],)),
        ({"CUDA_VISIBLE_DEVICES": " GPU-cccc-3 , GPU-aaaa-1 "}, (ALL[2], ALL[0])),
        ({"CUDA_VISIBLE_DEVICES": "GPU-cccc,GPU-nobody,GPU-aaaa"}, (ALL[2],)),
        ({"CUDA_VISIBLE_DEVICES": "2,-1,0", **BY_BUS}, (ALL[2],)),
    ],
)
def test_the_devices_that_cuda_sees(environ: dict[str, str], expected: tuple[str, ...]) -> None:
    assert visible_uuids(ALL, environ) == expected


@pytest.mark.parametrize("visible", ["", "-1", "7", "GPU-aaa", "MIG-1", "1"])
def test_devices_that_cannot_be_told_are_refused(visible: str) -> None:
    with pytest.raises(LookupError, match="CUDA_VISIBLE_DEVICES"):
        visible_uuids(ALL, {"CUDA_VISIBLE_DEVICES": visible})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ALL),
        (BY_BUS, ALL),
        ({"CUDA_DEVICE_ORDER": ""}, ALL),
        ({"CUDA_VISIBLE_DEVICES": "2,0,1"}, (ALL[2], ALL[0], ALL[1])),
        ({"CUDA_VISIBLE_DEVICES": "GPU-cccc,GPU-aaaa", **FASTEST}, (ALL[2], ALL[0])),
    ],
)
def test_the_devices_that_an_engine_counts_by_bus(
    environ: dict[str, str], expected: tuple[str, ...]
) -> None:
    assert counted_uuids(ALL, environ) == expected


@pytest.mark.parametrize("visible", [{}, {"CUDA_VISIBLE_DEVICES": "2,0,1"}])
def test_another_order_of_devices_than_by_bus_is_refused(visible: dict[str, str]) -> None:
    with pytest.raises(LookupError, match="CUDA_DEVICE_ORDER=FASTEST_FIRST is not NVML's"):
        counted_uuids(ALL, {**visible, **FASTEST})
    assert counted_uuids(ALL[:1], FASTEST) == ALL[:1]


def test_a_single_device_needs_no_order() -> None:
    assert visible_uuids(ALL[:1], {"CUDA_VISIBLE_DEVICES": "0"}) == ALL[:1]
    with pytest.raises(LookupError, match="no GPU"):
        visible_uuids((), {})


def make_proc(folder: Path, parents: dict[int, int], namespace: str = "pid:[1]") -> Path:
    for pid, parent in parents.items():
        (folder / str(pid)).mkdir()
        (folder / str(pid) / "stat").write_text(f"{pid} (a) b) (c) S {parent} 1 1 0")
    (folder / "self" / "ns").mkdir(parents=True)
    (folder / "self" / "ns" / "pid").symlink_to(namespace)
    return folder


def test_a_process_is_the_experiments_own_when_the_experiment_started_it(tmp_path: Path) -> None:
    proc = make_proc(tmp_path, {1: 0, 10: 1, 20: 10, 30: 20, 40: 1})
    found = {pid: kin(pid, 10, proc) for pid in (10, 20, 30, 40, 1, 99)}
    assert found == {10: "own", 20: "own", 30: "own", 40: "other", 1: "other", 99: "unseen"}


def test_this_process_is_kin_to_itself_and_to_its_parent_where_that_is_not_init() -> None:
    assert kin(os.getpid(), os.getpid()) == "own"
    if os.getppid() > 1:
        assert kin(os.getpid(), os.getppid()) == "own"
    assert kin(os.getppid(), os.getpid()) == ("other" if os.getppid() else "unseen")


def test_process_ids_are_the_hosts_only_in_its_own_namespace(tmp_path: Path) -> None:
    host, container = tmp_path / "host", tmp_path / "container"
    for folder in (host, container):
        folder.mkdir()
    assert pids_are_of_the_host(make_proc(host, {}, "pid:[4026531836]"))
    assert not pids_are_of_the_host(make_proc(container, {}, "pid:[4026532198]"))
    assert not pids_are_of_the_host(tmp_path / "nowhere")


def summary(
    seen: list[tuple[int, str]] | None, *, host: bool = True, refused: bool = False
) -> dict[str, Any]:
    return {
        "offered": {"GPU-a": []},
        "refused": {"GPU-a": {PROCESSES: "Insufficient Permissions"} if refused else {}},
        "failing": {"GPU-a": {}},
        "processes": {} if seen is None else {"GPU-a": seen},
        "host_pids": host,
    }


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (summary([]), ()),
        (summary([(5, "own")]), ()),
        (summary([(9, "other"), (5, "own"), (7, "unseen")]), (7, 9)),
        (summary([], host=False), None),
        (summary([(9, "unseen")], host=False), None),
        (summary([(9, "unseen"), (5, "own")], host=False), (9,)),
        (summary(None), None),
        (summary([(9, "other")], refused=True), None),
    ],
)
def test_who_is_foreign(found: dict[str, Any], expected: tuple[int, ...] | None) -> None:
    assert foreign_pids("GPU-a", found) == expected


def test_a_state_that_nothing_was_read_of_is_unknown_throughout() -> None:
    [state] = device_states({}, summary([]), Window(0, 1))
    known = state.model_dump(exclude={"device", "foreign_pids"}, exclude_defaults=True)
    assert known == {}
