"""What a container, a job or a shell allows of memory and CPU time, on made-up trees."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import psutil
import pytest

from llenergymeasure.core.allowance import (
    Allowance,
    allowance,
    read_oom_kills,
    read_throttling,
    throttling,
)
from llenergymeasure.units import MIB
from tests.support.control_groups import V1_CPU, V1_MEMORY, V2, write_tree

RAM_MB = psutil.virtual_memory().total / MIB
NO_V1_LIMIT = 9223372036854771712
MEMORY, CPU = "sys/fs/cgroup/memory", "sys/fs/cgroup/cpu,cpuacct"


def unlimited(_: int) -> tuple[int, int]:
    return resource.RLIM_INFINITY, resource.RLIM_INFINITY


def found(root: Path, ulimit: Any = unlimited) -> Allowance:
    return allowance(root, ulimit)


def v2_tree(root: Path, own: str, files: dict[str, str | int], top: str = "/") -> Path:
    below = {f"sys/fs/cgroup{name}": text for name, text in files.items()}
    return write_tree(root, f"0::{own}", {V2: top}, below)


def test_a_machine_without_control_groups_allows_all_that_it_has(tmp_path: Path) -> None:
    allowed = found(tmp_path)
    assert (allowed.memory_mb, allowed.memory_by, allowed.cpu_quota) == (RAM_MB, None, None)
    assert allowed.memory_owner == "this machine's RAM"
    assert allowed.threads == allowed.cpus >= 1


def test_the_limit_of_a_job_is_what_there_is(tmp_path: Path) -> None:
    files = {"/job/memory.max": 64 * MIB, "/job/memory.high": "max", "/job/cpu.max": "max 100000"}
    allowed = found(v2_tree(tmp_path, "/job", files))
    assert allowed.memory_mb == 64
    assert allowed.memory_by == "memory.max of the control group /job"
    assert "limited by memory.max of the control group /job" in allowed.memory_owner
    assert allowed.cpu_quota is None


def test_the_tightest_limit_up_the_tree_holds(tmp_path: Path) -> None:
    files = {
        "/a/b/c/memory.max": 200 * MIB,
        "/a/b/memory.max": "max",
        "/a/memory.max": 100 * MIB,
        "/a/b/c/cpu.max": "max 100000",
        "/a/b/cpu.max": "150000 100000",
        "/a/cpu.max": "400000 100000",
    }
    allowed = found(v2_tree(tmp_path, "/a/b/c", files))
    assert (allowed.memory_mb, allowed.cpu_quota) == (100, 1.5)
    assert allowed.memory_by == "memory.max of the control group /a"


def test_what_throttles_before_it_kills_is_a_limit_too(tmp_path: Path) -> None:
    files = {"/job/memory.max": 64 * MIB, "/job/memory.high": 32 * MIB}
    allowed = found(v2_tree(tmp_path, "/job", files))
    assert (allowed.memory_mb, allowed.memory_by) == (
        32,
        "memory.high of the control group /job",
    )


def test_a_container_that_sees_its_own_group_alone_is_limited_by_it(tmp_path: Path) -> None:
    files = {"/memory.max": 64 * MIB, "/cpu.max": "50000 100000"}
    for number, (own, top) in enumerate([("/", "/"), ("/docker/1", "/docker/1"), ("/../x", "/")]):
        allowed = found(v2_tree(tmp_path / str(number), own, files, top))
        assert (allowed.memory_mb, allowed.cpu_quota) == (64, 0.5), own
        assert allowed.memory_by == "memory.max of the control group /"


def v1_tree(root: Path, own: str, files: dict[str, str | int], top: str = "/") -> Path:
    cgroup = f"4:memory:{own}\n3:cpu,cpuacct:{own}\n1:name=systemd:{own}\n0::/"
    unified = "cgroup2::/sys/fs/cgroup/unified"
    return write_tree(root, cgroup, {V1_MEMORY: top, V1_CPU: top, unified: "/"}, files)


def test_version_1_is_read_beside_a_version_2_that_limits_nothing(tmp_path: Path) -> None:
    files = {
        f"{MEMORY}/job/step/memory.limit_in_bytes": NO_V1_LIMIT,
        f"{MEMORY}/job/memory.limit_in_bytes": 64 * MIB,
        f"{CPU}/job/step/cpu.cfs_quota_us": -1,
        f"{CPU}/job/step/cpu.cfs_period_us": 100_000,
        f"{CPU}/job/cpu.cfs_quota_us": 250_000,
        f"{CPU}/job/cpu.cfs_period_us": 100_000,
    }
    allowed = found(v1_tree(tmp_path, "/job/step", files))
    assert (allowed.memory_mb, allowed.cpu_quota) == (64, 2.5)
    assert allowed.memory_by == "memory.limit_in_bytes of the control group /job"


def test_version_1_tells_a_container_of_limits_above_it(tmp_path: Path) -> None:
    stat = f"cache 1\nhierarchical_memory_limit {48 * MIB}\nhierarchical_memsw_limit 1\n"
    files = {
        f"{MEMORY}/memory.limit_in_bytes": NO_V1_LIMIT,
        f"{MEMORY}/memory.stat": stat,
    }
    allowed = found(v1_tree(tmp_path, "/docker/1", files, top="/docker/1"))
    assert allowed.memory_mb == 48
    assert allowed.memory_by == "hierarchical_memory_limit of the control group /"


def test_a_limit_above_what_the_machine_has_is_none(tmp_path: Path) -> None:
    allowed = found(v2_tree(tmp_path, "/job", {"/job/memory.max": 1 << 60}))
    assert (allowed.memory_mb, allowed.memory_by) == (RAM_MB, None)


@pytest.mark.parametrize(
    ("limit", "name"), [(resource.RLIMIT_AS, "ulimit -v"), (resource.RLIMIT_DATA, "ulimit -d")]
)
def test_limits_of_the_shell_count(tmp_path: Path, limit: int, name: str) -> None:
    def ulimit(asked: int) -> tuple[int, int]:
        return (96 * MIB if asked == limit else resource.RLIM_INFINITY), resource.RLIM_INFINITY

    allowed = found(v2_tree(tmp_path, "/job", {"/job/memory.max": 128 * MIB}), ulimit)
    assert (allowed.memory_mb, allowed.memory_by) == (96, name)


def test_a_folder_with_a_space_in_its_name_is_found(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path,
        "0::/my job",
        {r"cgroup2::/sys/fs/my\040groups": "/"},
        {"sys/fs/my groups/my job/memory.max": 64 * MIB},
    )
    assert found(root).memory_mb == 64


def test_a_quota_is_shared_by_whole_threads() -> None:
    quotas = {None: 8, 0.2: 1, 1.5: 1, 2.0: 2, 2.9: 2, 100.0: 8}
    given = {quota: Allowance(1.0, None, 8, quota).threads for quota in quotas}
    assert given == quotas


# Throttling ---------------------------------------------------------------------------------------


def v2_stat(periods: int, throttled: int, usec: int) -> str:
    return (
        f"usage_usec 5\nuser_usec 5\nsystem_usec 0\nnr_periods {periods}\n"
        f"nr_throttled {throttled}\nthrottled_usec {usec}\nnr_bursts 0\nburst_usec 0"
    )


def test_what_a_quota_held_back_is_counted_between_two_readings(tmp_path: Path) -> None:
    before = read_throttling(
        v2_tree(tmp_path / "0", "/job", {"/job/cpu.stat": v2_stat(100, 10, 500_000)})
    )
    after = read_throttling(
        v2_tree(tmp_path / "1", "/job", {"/job/cpu.stat": v2_stat(200, 60, 4_500_000)})
    )
    held = throttling(before, after)

    assert held is not None
    assert held.group == "the control group /job"
    assert (held.periods, held.throttled_periods, held.throttled_s) == (100, 50, 4.0)


def test_a_group_above_that_holds_back_is_told(tmp_path: Path) -> None:
    files = {"/a/b/cpu.stat": v2_stat(50, 0, 0), "/a/cpu.stat": v2_stat(50, 5, 200_000)}
    held = throttling({}, read_throttling(v2_tree(tmp_path, "/a/b", files)))
    assert held is not None
    assert (held.group, held.throttled_s) == ("the control group /a", 0.2)


def test_version_1_counts_in_nanoseconds(tmp_path: Path) -> None:
    stat = "nr_periods 20\nnr_throttled 5\nthrottled_time 1500000000"
    held = throttling({}, read_throttling(v1_tree(tmp_path, "/job", {f"{CPU}/job/cpu.stat": stat})))
    assert held is not None
    assert (held.throttled_periods, held.throttled_s) == (5, 1.5)


def test_without_a_quota_nothing_is_held_back(tmp_path: Path) -> None:
    stat = v2_stat(0, 0, 0)
    read = read_throttling(v2_tree(tmp_path, "/job", {"/job/cpu.stat": stat}))
    assert read == {}
    assert throttling({}, read) is None


def test_what_the_kernel_has_killed_is_counted_by_the_own_group_first(tmp_path: Path) -> None:
    files: dict[str, str | int] = {
        "/job/memory.events": "low 0\nhigh 3\nmax 5\noom 2\noom_kill 2\noom_group_kill 0",
        "/memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 4",
    }
    root = v2_tree(tmp_path, "/job", files)
    (root / "proc" / "vmstat").write_text("pgfault 17\noom_kill 9\ncompact_stall 0\n")
    counted = {"the control group /job": 2, "the control group /": 4, "this machine": 9}
    assert list(read_oom_kills(root).items()) == list(counted.items())


def test_version_1_counts_such_kills_in_another_file(tmp_path: Path) -> None:
    told = "oom_kill_disable 0\nunder_oom 0\noom_kill 3"
    write_tree(tmp_path, "4:memory:/a", {V1_MEMORY: "/"}, {f"{MEMORY}/a/memory.oom_control": told})
    assert read_oom_kills(tmp_path) == {"the control group /a": 3}


def test_a_system_that_counts_no_kills_says_nothing(tmp_path: Path) -> None:
    assert read_oom_kills(tmp_path) == {}
