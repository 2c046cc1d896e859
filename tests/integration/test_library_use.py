"""The library in scripts: nothing left behind, no main guard needed, any thread will do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import Llem

FIELDS = (
    "model='m', backend='scripted', n=2, max_new_tokens=2, warmup={'n_warmup': 0}, "
    "energy_backend='none'"
)


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    return Llem(tmp_path)


def left(llem: Llem) -> list[str]:
    """List every file and folder that a script left, but for the script and empty homes."""
    own = {"script.py", "home", "tmp"}
    every = (str(path.relative_to(llem.folder)) for path in llem.left("."))
    return [name for name in every if name not in own]


def test_an_experiment_leaves_nothing_behind(llem: Llem) -> None:
    done = llem.script(
        "from llenergymeasure import run_experiment\n"
        f"print(run_experiment({FIELDS}).tokens_per_second > 0)\n"
    )
    assert (done.code, done.out) == (0, "True\n"), done.err
    assert left(llem) == []


def test_a_failed_experiment_leaves_nothing_behind_but_its_last_words(llem: Llem) -> None:
    done = llem.script(
        "from llenergymeasure import run_experiment\n"
        f"run_experiment({FIELDS}, scripted={{'fail_at': 'measure'}})\n"
    )
    assert done.code == 1
    assert "ExperimentError: the experiment failed in phase 'measure'" in done.err
    assert "/tmp/llem-" not in done.err, "a path that is gone helps nobody"
    assert left(llem) == []


def test_energy_sampled_in_another_process_needs_no_main_guard(llem: Llem) -> None:
    pytest.importorskip("codecarbon")
    fields = FIELDS.replace("'none'", "'codecarbon'")
    done = llem.script(
        "print('top level')\n"
        "from llenergymeasure import run_experiment\n"
        f"print(run_experiment({fields}).energy.source)\n"
    )
    assert done.code == 0, done.err
    assert done.out.count("top level") == 1
    assert left(llem) == []


def test_random_weights_leave_only_the_model_cache(llem: Llem) -> None:
    pytest.importorskip("transformers")
    fields = FIELDS.replace("'m', backend='scripted'", "'random:tiny-llama', precision='fp32'")
    done = llem.script(
        "from llenergymeasure import run_experiment\n"
        f"print(run_experiment({fields}).resolved.model.weights)\n"
    )
    assert (done.code, done.out) == (0, "random\n"), done.err
    assert {Path(name).parts[:3] for name in left(llem) if Path(name).suffix} == {
        ("home", "cache", "llenergymeasure")
    }


def test_an_experiment_runs_in_a_thread(llem: Llem) -> None:
    done = llem.script(
        "import threading\n"
        "from llenergymeasure import run_experiment\n"
        "results = []\n"
        f"work = lambda: results.append(run_experiment({FIELDS}))\n"
        "thread = threading.Thread(target=work)\n"
        "thread.start()\n"
        "thread.join()\n"
        "print(results[0].throughput.requests_completed)\n"
    )
    assert (done.code, done.out) == (0, "2\n"), done.err


def test_a_configuration_and_fields_together_are_an_error(llem: Llem) -> None:
    done = llem.script(
        "from llenergymeasure import run_experiment\nrun_experiment('a.yaml', model='m')\n"
    )
    assert "TypeError: give either a configuration or its fields, not both" in done.err


def test_with_an_output_directory_the_whole_experiment_is_kept(llem: Llem) -> None:
    done = llem.script(
        f"from llenergymeasure import run_experiment\nrun_experiment({FIELDS}, output_dir='kept')\n"
    )
    assert done.code == 0, done.err
    names = {path.name for path in llem.left("kept")}
    assert {"config.json", "result.json", "requests.parquet", "log.txt"} <= names
