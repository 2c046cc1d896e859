"""Several processes that share the prompts of one experiment: real processes, real files."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pyarrow.parquet as pq
import pytest

from llenergymeasure import run_experiment
from llenergymeasure.core.backends.protocol import Rank
from llenergymeasure.core.energy.estimator import Knowledge, estimate_energy
from llenergymeasure.core.energy.gpus import by_channel
from llenergymeasure.core.energy.nvml_reader import COUNTER
from llenergymeasure.core.energy.sampled_source import SETTLE_S, gpu_readings
from llenergymeasure.domain.energy import Reading
from llenergymeasure.domain.results import ExperimentResult
from llenergymeasure.orchestration.events import EventLog
from llenergymeasure.orchestration.fleet import FleetExecutor
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.results.persistence import read_process
from llenergymeasure.results.tables import read_requests, read_timeseries
from tests.support.cli import THIRD_PARTY, Llem, interrupt, wait_for
from tests.support.models import OFTEN, save_model
from tests.support.node_program import environment
from tests.support.scripted_run import make_order, scripted_config
from tests.support.simulated_device.build import compiler_missing
from tests.support.simulated_device.device import Board, SimulatedNode

PROMPTS = 7
# A backend whose processes each have a number, a device, and its load log.
FLEET = """
import os
import signal
import time
from pathlib import Path

from llenergymeasure.config.backend_configs import ScriptedConfig
from llenergymeasure.core.backends.protocol import Rank
from llenergymeasure.core.backends.scripted.engine import ScriptedBackend, ScriptedEngine
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.exceptions import BackendError

LOGS = [log for log in os.environ.get("LOGS", "").split(",") if log]
UUIDS = tuple(uuid for uuid in os.environ.get("UUIDS", "").split(",") if uuid)
NUMBER = int(os.environ.get("NUMBER", "0"))


class Engine(ScriptedEngine):
    def run(self, batches, pass_index, progress):
        if pass_index >= 0 and NUMBER == 1:
            {measured}
        return super().run(batches, pass_index, progress)


class Backend(ScriptedBackend):
    def ranks(self, config):
        return tuple(Rank(config, {{"NUMBER": str(number)}}) for number in range({processes}))

    def target(self, config):
        return DeviceTarget("gpu", UUIDS) if UUIDS else DeviceTarget("cpu")

    def load(self, config, cache_dir):
        print("loading in process", NUMBER)
        return Engine(config, ScriptedConfig(
            ttft_ms={ttft_ms}, itl_ms=5, load_log=LOGS[NUMBER] if LOGS else None,
            idle_w=75, prefill_w=300 + 40 * NUMBER, decode_w=250 + 30 * NUMBER,
        ))
"""
BUSY = "Path('busy').touch(); time.sleep(600)"
# One call that keeps the interpreter to itself, as a kernel that never returns would.
STUCK = "Path('busy').touch(); sum(range(10 ** 15))"


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    return Llem(tmp_path)


def fleet(llem: Llem, *, measured: str = "pass", processes: int = 2, ttft_ms: float = 5) -> None:
    llem.plugin(FLEET.format(measured=measured, processes=processes, ttft_ms=ttft_ms))


def directory(llem: Llem) -> ExperimentDirectory:
    (root,) = (llem.folder / "results").iterdir()
    return ExperimentDirectory(root)


class Run(NamedTuple):
    """An experiment on the PyTorch backend, and where it lies."""

    result: ExperimentResult
    directory: ExperimentDirectory


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that ends its answers by itself, so that their lengths tell the tokens apart."""
    folder = tmp_path_factory.mktemp("models") / "model"
    return save_model(folder, eos_token_id=OFTEN)


def run(model: Path, folder: Path, processes: int) -> Run:
    prompts = folder / "prompts.jsonl"
    lines = [{"prompt": f"{'word ' * (3 + i)}number {i}"} for i in range(PROMPTS)]
    prompts.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    result = run_experiment(
        model=str(model),
        precision="fp32",
        dataset=str(prompts),
        n=PROMPTS,
        max_new_tokens=24,
        energy_backend="none",
        warmup={"n_warmup": 1},
        window={"min_duration_seconds": 2},
        pytorch={"num_processes": processes, "device": "cpu"},
        output_dir=folder / "results",
    )
    (root,) = (folder / "results").iterdir()
    return Run(result, ExperimentDirectory(root))


@pytest.fixture(scope="module")
def alone(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(model, tmp_path_factory.mktemp("alone"), 1)


@pytest.fixture(scope="module")
def together(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(model, tmp_path_factory.mktemp("together"), 2)


def answers(run: Run) -> dict[int, set[tuple[Any, ...]]]:
    """Give the length of each prompt and of its answer, and how it ended, over all passes."""
    found: dict[int, set[tuple[Any, ...]]] = {}
    for one in read_requests(run.directory.requests):
        found.setdefault(one.request, set()).add((one.input_tokens, one.output_tokens, one.finish))
    return found


def test_two_processes_answer_as_one_does(alone: Run, together: Run) -> None:
    assert answers(together) == answers(alone)
    lengths = {length for ((_, length, _),) in answers(alone).values()}
    assert len(lengths) > 2, "answers of equal length would tell nothing"


def test_every_prompt_is_run_once_a_pass_by_the_process_whose_turn_it_is(together: Run) -> None:
    rows = pq.read_table(together.directory.requests).to_pylist()
    passes = together.result.throughput.passes
    assert passes >= 2
    assert Counter((row["pass_index"], row["request"]) for row in rows) == Counter(
        (number, request) for number in range(passes) for request in range(PROMPTS)
    )
    assert all(row["process"] == row["request"] % 2 for row in rows)


def test_figures_are_those_of_the_pooled_samples_over_the_common_window(together: Run) -> None:
    result, window = together.result, together.result.window
    shares = [read_process(together.directory.process(number)) for number in range(2)]
    requests = [one for share in shares for one in share.requests]

    assert result.throughput.requests_completed == len(requests)
    assert result.throughput.output_tokens == sum(one.output_tokens for one in requests)
    assert result.tokens_per_second == pytest.approx(
        result.throughput.output_tokens / ((window.t1_ns - window.t0_ns) / 1e9)
    )
    assert {share.window.t0_ns for share in shares} == {window.t0_ns}, "they start together"
    assert max(share.window.t1_ns for share in shares) == window.t1_ns
    assert all(one.issued_ns >= window.t0_ns for one in requests)
    assert all((one.delivered_ns or 0) <= window.t1_ns for one in requests)
    assert result.peak_memory_mb == pytest.approx(sum(s.memory.peak_mb or 0 for s in shares))


def test_nobody_begins_a_pass_before_everybody_has_ended_the_one_before(together: Run) -> None:
    rows = read_requests(together.directory.requests)
    for number in range(1, together.result.throughput.passes):
        ended = max(one.delivered_ns or 0 for one in rows if one.pass_index == number - 1)
        assert min(one.issued_ns for one in rows if one.pass_index == number) >= ended


def test_the_result_says_how_the_machine_was_shared(alone: Run, together: Run) -> None:
    one, two = alone.result.resolved.backend, together.result.resolved.backend
    assert (one["num_processes"], two["num_processes"]) == (1, 2)
    assert two["num_threads"] == max(1, one["num_threads"] // 2)


def test_the_summary_says_how_many_processes_there_were(alone: Run, together: Run) -> None:
    assert "2 processes" in together.result.summary()
    assert "process" not in alone.result.summary().split("Machine")[0]


def test_a_single_process_leaves_no_files_of_processes(alone: Run, together: Run) -> None:
    assert not list(alone.directory.root.glob("process_*"))
    assert len(list(together.directory.root.glob("process_*"))) == 4


def test_a_process_that_fails_ends_the_experiment_and_is_named(llem: Llem) -> None:
    fleet(llem, measured="raise BackendError('its fan fell off', where='generate')")
    done = llem("run", *THIRD_PARTY)

    assert done.code == 1
    assert "process 1 of 0 to 1 failed: its fan fell off" in done.err
    assert "process_1.log ends with:\nloading in process 1" in directory(llem).log.read_text()
    error = json.loads(directory(llem).error.read_text())
    assert (error["code"], error["phase"]) == ("backend", "measure")


def test_an_error_that_nobody_foresaw_is_in_the_log_of_its_process(llem: Llem) -> None:
    fleet(llem, measured="1 / 0")
    done = llem("run", *THIRD_PARTY)

    assert done.code == 1
    assert "process 1 of 0 to 1 failed: ZeroDivisionError: division by zero" in done.err
    assert "Traceback" in directory(llem).process_log(1).read_text()
    end_of_it = "1 / 0\n    ~~^~~\nZeroDivisionError: division by zero\n"
    assert end_of_it in directory(llem).log.read_text()


def test_a_process_that_is_killed_ends_the_experiment_and_is_named(llem: Llem) -> None:
    fleet(llem, measured="os.kill(os.getpid(), signal.SIGKILL)")
    done = llem("run", *THIRD_PARTY)

    assert done.code == 1
    assert "process 1 of 0 to 1 was killed by signal 9 (Killed)" in done.err
    assert not directory(llem).result.exists()


def test_a_process_that_is_stopped_ends_the_run_and_the_others(llem: Llem) -> None:
    fleet(llem, measured="os.kill(os.getpid(), signal.SIGSTOP)")
    done = llem("run", *THIRD_PARTY)

    assert done.code == 1
    assert "one of several processes no longer answers: its process " in done.err
    assert "has been stopped for 10 s" in done.err
    error = json.loads(directory(llem).error.read_text())
    assert (error["code"], error["phase"]) == ("backend", "measure")


# A process whose environment no system takes is not started (E2BIG of execve(2)).
TOO_MUCH = """
    def ranks(self, config):
        return Rank(config, {}), Rank(config, {"ROOM": "x" * 10_000_000})
"""


def test_a_process_that_cannot_be_started_is_a_failure_of_the_backend(llem: Llem) -> None:
    llem.plugin(FLEET.format(measured="pass", processes=2, ttft_ms=5) + TOO_MUCH)
    done = llem("run", *THIRD_PARTY)

    assert done.code == 1
    assert "process 1 of 0 to 1 cannot be started: Argument list too long" in done.err
    error = json.loads(directory(llem).error.read_text())
    assert (error["code"], error["phase"]) == ("backend", "load")


def test_the_log_of_a_process_holds_nothing_of_an_earlier_attempt(tmp_path: Path) -> None:
    there = ExperimentDirectory(tmp_path)
    there.process_log(0).write_text("an old crash\n")
    order = make_order(scripted_config(), tmp_path)
    events = EventLog(there.events, None, lambda: None)
    made = FleetExecutor([Rank(order.config, {})], order, there, events)
    with closing(events), closing(made) as executor:
        executor.start()
        executor.load()

    assert "an old crash" not in there.process_log(0).read_text()


def test_more_processes_than_prompts_is_told_before_anything_starts(llem: Llem) -> None:
    said = llem.fails(
        *("run", "-m", "random:tiny-llama", "-n", "1", "--energy-backend", "none"),
        str(llem.write("two.yaml", "model: random:tiny-llama\npytorch: {num_processes: 2}\n")),
    )
    assert "2 processes have only 1 prompts to share" in said


@pytest.mark.parametrize("how", [BUSY, STUCK])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_every_process(
    llem: Llem, how: str, number: signal.Signals, code: int
) -> None:
    fleet(llem, measured=how)
    process = llem.start("run", *THIRD_PARTY)
    wait_for(lambda: (llem.folder / "busy").exists() or process.poll() is not None)
    done = interrupt(process, number=number)

    assert done.code == code, done.err
    assert "interrupted in phase 'measure'; no result was written" in done.err


@pytest.mark.parametrize("how", [BUSY, STUCK])
def test_no_process_outlives_the_one_that_coordinates(llem: Llem, how: str) -> None:
    fleet(llem, measured=how)
    process = llem.start("run", *THIRD_PARTY)
    wait_for(lambda: (llem.folder / "busy").exists() or process.poll() is not None)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()

    assert len(children) >= 2
    _gone, alive = psutil.wait_procs(children, timeout=30)
    assert not alive


COLD = """
from pathlib import Path

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.orchestration import worker
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.results.layout import ExperimentDirectory

config = ExperimentConfig(model="random:tiny-llama", backend="thirdparty", n=4, max_new_tokens=2)
order = WorkOrder(config=config, energy_backend="none", model_cache_dir="cache", cold_start=True)
directory = ExperimentDirectory(Path("cold"))
directory.root.mkdir()
directory.config.write_text(order.model_dump_json())
print(worker.run(directory).to_json())
"""


def test_a_cold_start_of_several_processes_loads_in_one_window(llem: Llem) -> None:
    fleet(llem)
    done = llem.script(COLD)
    result = json.loads(done.out)

    assert result["load"]["seconds"] > 0
    assert result["warmup"]["batches"] == 0
    assert result["throughput"]["requests_completed"] == 4


@pytest.mark.skipif(compiler_missing() is not None, reason=str(compiler_missing()))
def test_energy_is_that_of_all_devices_over_the_common_window(llem: Llem) -> None:
    node = SimulatedNode(llem.folder, [Board(seed=number) for number in range(4)])
    uuids = [node.uuid(number) for number in range(4)]
    llem.environment |= {
        **{name: environment(node)[name] for name in ("LD_LIBRARY_PATH", "PATH")},
        "SIMULATED_NVML": node.environment["SIMULATED_NVML"],
        "UUIDS": ",".join(uuids),
        "LOGS": ",".join(str(node.load_log(number)) for number in range(4)),
    }
    fleet(llem, processes=4, ttft_ms=250)
    config = llem.write(
        "four.yaml",
        "model: random:tiny-llama\nbackend: thirdparty\nn: 16\nmax_new_tokens: 60\n"
        "warmup: {n_warmup: 1, thermal_floor_seconds: 0}\nbaseline: {duration_seconds: 2}\n"
        "window: {phases: differential}\n",
    )
    done = llem("run", str(config), "--energy-backend", "nvml", timeout_s=300)
    assert done.code == 0, done.err

    found = directory(llem)
    result = json.loads(found.result.read_text())
    energy, window = result["energy"], result["window"]
    t0_s, t1_s = window["t0_ns"] / 1e9, window["t1_ns"] / 1e9
    truth_j = [node.true_energy_j(t0_s, t1_s, number) for number in range(4)]
    assert energy["total_j"] == pytest.approx(sum(truth_j), abs=energy["interval95_j"])
    told_j = result["multi_gpu"]["energy_j"]
    assert list(told_j) == uuids
    for part, true_j in zip(energy["components"], truth_j, strict=True):
        assert part["energy_j"] == pytest.approx(true_j, abs=part["interval95_j"])
    assert energy["phases"]["prefill_passes"] == 1
    assert 0 < energy["phases"]["prefill_j"] < energy["total_j"]
    assert energy["adjusted_j"] == pytest.approx(adjusted_j(found, uuids), rel=1e-6)


def adjusted_j(found: ExperimentDirectory, uuids: list[str]) -> float:
    """Derive energy above idle again, from nothing but the readings in the file."""
    energy_j, seconds = {}, {}
    ends: list[Reading] = []  # of warm-up batches: their ticks tell of the comb too
    for one in read_timeseries(found.timeseries):
        earlier = ends if one.name in {"measure", "prefill"} else []
        taken = by_channel([*earlier, *one.readings])
        if one.name == "warmup_end":
            ends += [row for row in one.readings if row.channel == COUNTER]
        settled = Knowledge(rest_from_ns=one.readings[0].after_ns + round(SETTLE_S * 1e9))
        estimates = [
            estimate_energy(gpu_readings(uuid, taken), one.window, settled) for uuid in uuids
        ]
        energy_j[one.name] = sum(estimate.energy_j or 0.0 for estimate in estimates)
        seconds[one.name] = one.window.seconds
    idle_w = energy_j["loaded_idle"] / seconds["loaded_idle"]
    return energy_j["measure"] - idle_w * seconds["measure"]
