"""What the documentation shows is run as a user would, with a network and without one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from llenergymeasure import ExperimentResult
from llenergymeasure.config.registry import BACKENDS
from llenergymeasure.datasets.aienergyscore import SHA256
from llenergymeasure.exceptions import LLEMError
from llenergymeasure.results.tables import READING_COLUMNS, REQUEST_COLUMNS
from tests.support.nursery import Command, Warm

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PROMPTS = ROOT.parent / "shared/data/aienergyscore.jsonl"
FROM_THE_HUB = ("hub-model.yaml", "lora.yaml")
STUDIES = ("batch-and-precision.yaml", "study-quickstart.yaml")
RUNNABLE = [
    path
    for path in sorted(EXAMPLES.glob("*.yaml"))
    if path.name not in (*FROM_THE_HUB, *STUDIES, "aienergyscore.yaml", "quickstart.yaml")
]
MARKED = re.compile(r"^<!-- runnable -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(text, id=f"{page.name}-{number}")
    for page in PAGES
    for number, text in enumerate(MARKED.findall(page.read_text(encoding="utf-8")), start=1)
]
needs_prompts = pytest.mark.skipif(
    not PROMPTS.exists(), reason="the original AIEnergyScore prompts are not at hand"
)

LOAD = """
import sys
from llenergymeasure import ExperimentResult
print(ExperimentResult.from_json(sys.argv[1]).throughput.output_tokens)
"""
NO_NETWORK = """
import socket

def _refuse(self, address):
    raise OSError(101, "Network is unreachable")

_connect = socket.socket.connect
socket.socket.connect = lambda self, address: (
    _connect(self, address) if self.family == socket.AF_UNIX else _refuse(self, address)
)
socket.socket.connect_ex = _refuse
"""


INHERITED = {
    **{name: text for name, text in os.environ.items() if not name.startswith(("LLEM_", "HF_"))},
    # One thread: more than one spin against whatever else the machine is doing.
    "COLUMNS": "80",
    "OMP_NUM_THREADS": "1",
}
WARM = Warm(
    {**INHERITED, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"},
    preload=("torch", *BACKENDS["pytorch"].preload),
)
"""Forks commands that have PyTorch imported; whoever has no network starts by itself."""


class Machine(NamedTuple):
    """A user's home, and a network or none."""

    home: Path
    prefix: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    hub_offline: bool = True

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python as this user; without LLEM_ and HF_ variables of whoever runs the tests."""
        return subprocess.run(
            [*self.prefix, sys.executable, *arguments],
            env=self.variables(),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    def variables(self) -> dict[str, str]:
        places = {name: str(self.home) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
        paths = os.pathsep.join((*self.search, str(ROOT / "src")))
        offline = {"HF_HUB_OFFLINE": "1"} if self.hub_offline else {}
        return {**INHERITED, **places, **offline, "PYTHONPATH": paths}

    def llem(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        words = tuple(map(str, arguments))
        if self.prefix or self.search:
            return self.python("-m", "llenergymeasure", *words)
        command = Command(words, str(self.home), self.variables())
        return subprocess.CompletedProcess(words, *WARM.run(command, 900))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def works(command: Sequence[str]) -> bool:
    found = shutil.which(command[0]) is not None
    return (
        found
        and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    )


@pytest.fixture(params=["network as it is", "no network"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    """A machine with the network it has, and one that has none and does not know."""
    return Machine(tmp_path) if request.param == "network as it is" else cut_off(tmp_path)


def cut_off(tmp_path: Path) -> Machine:
    """Give a machine that has no network and does not know."""
    namespace = ("unshare", "--map-root-user", "--net")
    if works(namespace):
        return Machine(tmp_path, prefix=namespace, hub_offline=False)
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(NO_NETWORK)
    return Machine(tmp_path, search=(str(folder),), hub_offline=False)


def only_result(directory: Path) -> Path:
    (found,) = directory.iterdir()
    return found


def test_the_quickstart_runs_to_its_summary_without_a_network(tmp_path: Path) -> None:
    user = cut_off(tmp_path)
    done = user.llem("run", EXAMPLES / "quickstart.yaml", "--output", user.home / "out")
    assert done.returncode == 0, done.stderr
    result = ExperimentResult.from_json(only_result(user.home / "out"))
    assert done.stdout.startswith(result.summary())
    assert result.throughput.window_s >= 10
    assert result.resolved.model.weights == "random"
    assert all(len(line) <= 80 for line in result.summary().splitlines())
    assert "measuring" in done.stderr
    shown = (ROOT / "README.md").read_text().split("```text\n")[1]
    assert labels(shown.partition("```")[0]) == labels(done.stdout)


def labels(printed: str) -> list[str]:
    """Give what begins the lines that are not indented: those of a result's summary."""
    return re.findall(r"^([A-Z]\w+)  ", printed, re.MULTILINE)


@needs_prompts
@pytest.mark.parametrize(("batch_size", "network"), [(1, True), (8, False)])
def test_real_prompts_are_measured_and_load_back(
    tmp_path: Path, batch_size: int, network: bool
) -> None:
    import pyarrow.parquet as pq

    user = Machine(tmp_path) if network else cut_off(tmp_path)
    done = user.llem(
        *("run", EXAMPLES / "aienergyscore.yaml", "--dataset", PROMPTS, "-n", "200"),
        *("--batch-size", str(batch_size), "--output", user.home / "out", "--quiet"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    directory = only_result(user.home / "out")
    result = ExperimentResult.from_json(directory)
    assert result.resolved.dataset.sha256 == SHA256
    assert result.resolved.backend["batch_size"] == batch_size
    assert result.throughput.requests_completed == 200
    assert result.throughput.output_tokens == 200 * 32
    assert result.energy.kind in ("measured", "modelled")
    assert result.energy_total_j is not None
    assert result.energy_total_j > 0

    requests = pq.read_table(directory / "requests.parquet")
    assert requests.column_names == [column.name for column in REQUEST_COLUMNS]
    assert requests.num_rows == 200
    assert sum(requests["output_tokens"].to_pylist()) == result.throughput.output_tokens
    assert len(set(requests["batch_index"].to_pylist())) == 200 // batch_size
    readings = pq.read_table(directory / "timeseries.parquet")
    assert readings.column_names == [column.name for column in READING_COLUMNS]
    t0_ns, t1_ns = (int(requests.schema.metadata[name]) for name in (b"t0_ns", b"t1_ns"))
    assert t0_ns <= min(requests["issued_ns"].to_pylist())
    assert max(requests["last_token_ns"].to_pylist()) <= t1_ns


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.name)
def test_every_example_runs(path: Path, machine: Machine) -> None:
    small = machine.home / path.name
    small.write_text(
        re.sub(r"min_duration_seconds: \d+", "min_duration_seconds: 0", path.read_text())
    )
    done = machine.llem("run", small, "-n", "2", "-o", machine.home / "out")
    assert done.returncode == 0, done.stderr
    result = ExperimentResult.from_json(only_result(machine.home / "out"))
    assert result.throughput.requests_completed == 2


@pytest.mark.parametrize("name", STUDIES)
def test_every_example_of_a_study_runs_to_its_table(name: str, machine: Machine) -> None:
    small = machine.home / name
    small.write_text(
        re.sub(
            r"min_duration_seconds: \d+", "min_duration_seconds: 0", (EXAMPLES / name).read_text()
        )
    )
    done = machine.llem(
        *("run", small, "-n", "2", "--max-new-tokens", "4", "--cycles", "1", "--no-gaps"),
        *("-o", machine.home / "out"),
    )
    assert done.returncode == 0, done.stderr
    assert "4 configurations, 1 cycle, balanced order" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines()[:-1])
    assert len(list(machine.home.glob("out/*/experiments/*/result.json"))) == 4


@pytest.mark.parametrize("name", FROM_THE_HUB)
def test_the_plan_of_an_example_from_the_hub_needs_no_network(name: str, either: Machine) -> None:
    done = either.llem("run", EXAMPLES / name, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "Qwen/Qwen2.5-0.5B" in done.stdout


def test_a_model_from_the_hub_without_a_network_is_refused_with_ways_out(either: Machine) -> None:
    done = either.llem("run", EXAMPLES / "hub-model.yaml")
    assert done.returncode == 1
    assert "random:tiny-llama" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("text", BLOCKS)
def test_every_marked_python_block_runs(text: str, machine: Machine) -> None:
    done = machine.python("-c", text)
    assert done.returncode == 0, done.stderr
    assert list(machine.home.rglob("result.json")) == []


def test_the_backend_of_the_guide_is_a_backend(tmp_path: Path) -> None:
    guide = (ROOT / "docs/how-to/write-a-backend.md").read_text(encoding="utf-8")
    entry, engine = re.findall(r"^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    (experiment,) = re.findall(r"^```text\n(model: .*?)^```$", guide, re.MULTILINE | re.DOTALL)
    machine = Machine(tmp_path, search=(str(install(entry, engine, tmp_path / "site")),))
    (tmp_path / "echo.yaml").write_text(experiment)

    listed = machine.llem("config")
    assert re.search(r"^  echo +yes ", listed.stdout, re.MULTILINE), listed.stderr
    (tmp_path / "lora.yaml").write_text(f"{experiment}lora: {{adapter_id: org/adapter}}\n")
    dropped = machine.llem("run", "lora.yaml", "--dry-run")
    assert "echo does not honour it; remove it" in dropped.stderr
    done = machine.llem(
        *("run", "echo.yaml", "-n", "3", "--max-new-tokens", "5", "--batch-size", "3"),
        *("--energy-backend", "none", "--output", tmp_path / "out"),
    )
    assert done.returncode == 0, done.stderr
    # Only where the backend is installed does a result load as a model; this process lacks it.
    result = json.loads((only_result(tmp_path / "out") / "result.json").read_text())
    assert result["throughput"]["output_tokens"] == 15
    assert result["resolved"]["backend"] == {"batch_size": 3, "token_ms": 2.0}
    assert result["tpot_ms"] >= 2
    with pytest.raises(LLEMError, match="echo"):
        ExperimentResult.from_json(only_result(tmp_path / "out"))
    loaded = machine.python("-c", LOAD, str(only_result(tmp_path / "out")))
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout == "15\n"


def install(entry: str, engine: str, site: Path) -> Path:
    """Lay out what pip would make of the guide's package."""
    package, metadata = site / "llem_echo", site / "llem_echo-0.1.dist-info"
    package.mkdir(parents=True)
    metadata.mkdir()
    (package / "__init__.py").write_text(entry)
    (package / "engine.py").write_text(engine)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: llem-echo\nVersion: 0.1\n")
    (metadata / "entry_points.txt").write_text(
        "[llenergymeasure.backends]\necho = llem_echo:FACTS\n"
    )
    return site
