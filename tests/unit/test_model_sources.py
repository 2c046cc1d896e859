"""Names of models, what stops them, and the files of random ones."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.core.models import catalogue, sources, tokenizer_files
from llenergymeasure.core.models.hub import Hub
from llenergymeasure.exceptions import ConfigError, Problem

NOWHERE = Hub(endpoint="http://127.0.0.1:9", timeout_s=1.0)  # nothing listens on the discard port


def model_directory(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    config = {**catalogue.config("tiny-llama"), **changes}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def only(problems: list[Problem]) -> Problem:
    assert len(problems) == 1, problems
    return problems[0]


# --- what a name stands for


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("meta-llama/Llama-3.1-8B", "hub"),
        ("gpt2", "hub"),
        ("random:tiny-llama", "random"),
        ("random:./models/mine", "random"),
        ("./models/mine", "directory"),
        ("../mine", "directory"),
        ("/models/mine", "directory"),
        ("~/mine", "directory"),
    ],
)
def test_a_name_stands_for_one_kind_of_source(name: str, kind: str) -> None:
    assert sources.resolve(name).kind == kind


def test_a_directory_that_exists_needs_no_leading_dot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sources.resolve("owner/model").kind == "hub"
    (tmp_path / "owner/model").mkdir(parents=True)
    assert sources.resolve("owner/model").kind == "directory"
    assert sources.resolve("random:owner/model").path == Path("owner/model")


def test_a_directory_never_hides_a_catalogue_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny-llama").mkdir()
    assert sources.resolve("random:tiny-llama").path is None
    assert sources.resolve("random:./tiny-llama").path == Path("tiny-llama")


def test_the_revision_goes_with_a_hub_model() -> None:
    assert sources.resolve("owner/model", "v1").revision == "v1"


# --- what stops a model


def test_an_unknown_architecture_gets_the_nearest_name_and_the_list() -> None:
    problem = only(sources.model_problems("random:tiny-lama"))
    assert "did you mean 'tiny-llama'" in problem.what
    assert "qwen2.5-7b" in problem.remedy


def test_a_missing_directory_is_reported_with_where_it_was_looked_for() -> None:
    problem = only(sources.model_problems("./no/such/model"))
    assert "./no/such/model" in problem.what
    assert str(Path.cwd()) in problem.remedy


def test_a_directory_without_a_configuration_is_reported(tmp_path: Path) -> None:
    assert "has no config.json" in only(sources.model_problems(str(tmp_path))).what


@pytest.mark.parametrize("text", ["{not json", "[1, 2]", "\x00"])
def test_a_malformed_configuration_is_reported_with_its_path(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    problem = only(sources.model_problems(str(tmp_path)))
    assert str(tmp_path / "config.json") in problem.what + problem.remedy


def test_a_random_model_with_an_unreadable_shape_is_reported(
    tmp_path: Path,
) -> None:
    folder = model_directory(tmp_path / "model", num_attention_heads=None)
    problem = only(sources.model_problems(f"random:{folder}"))
    assert "num_attention_heads" in problem.what


def test_a_directory_with_weights_may_have_a_shape_unknown_here(tmp_path: Path) -> None:
    folder = model_directory(tmp_path / "model", num_attention_heads=None)
    assert sources.model_problems(str(folder)) == []
    assert sources.architecture_of(sources.resolve(str(folder))) is None


def test_a_vocabulary_too_small_for_the_packaged_tokenizer_is_reported(
    tmp_path: Path,
) -> None:
    folder = model_directory(tmp_path / "model", vocab_size=100)
    problem = only(sources.model_problems(f"random:{folder}"))
    assert "100" in problem.what
    assert "tokenizer files beside its config.json" in problem.what


def test_a_catalogue_model_has_no_problem() -> None:
    assert sources.model_problems("random:tiny-llama") == []


@pytest.mark.usefixtures("hub_allowed")
def test_an_unreachable_hub_is_reported_fast_with_the_routes_that_need_none(
    tmp_path: Path,
) -> None:
    hub = Hub(endpoint=NOWHERE.endpoint, cache_dir=tmp_path)
    start = time.monotonic()
    problem = only(sources.model_problems("owner/model", hub=hub))
    assert time.monotonic() - start < 60
    for route in ("network", "HF_HUB_OFFLINE", "random:tiny-llama", "local directory"):
        assert route in problem.remedy


def test_a_catalogue_name_without_random_is_recognised(tmp_path: Path) -> None:
    hub = Hub(endpoint=NOWHERE.endpoint, cache_dir=tmp_path)
    problem = only(sources.model_problems("tiny-llama", hub=hub))
    assert problem.remedy == "did you mean 'random:tiny-llama'?"


def test_an_impossible_hub_id_is_reported(tmp_path: Path) -> None:
    problem = only(sources.model_problems("a b/c//d", hub=Hub(cache_dir=tmp_path)))
    assert "neither a local directory nor a possible name" in problem.what


def test_random_weights_need_an_architecture() -> None:
    problem = only(sources.model_problems("random:"))
    assert "names no architecture" in problem.what
    assert "tiny-llama" in problem.remedy


def test_a_revision_of_a_directory_is_refused(tmp_path: Path) -> None:
    folder = model_directory(tmp_path / "model")
    assert only(sources.model_problems(str(folder), "main")).where == "revision"


def test_a_directory_without_weights_is_told_from_one_with_some(tmp_path: Path) -> None:
    folder = model_directory(tmp_path / "model")
    problem = only(sources.weight_problems(str(folder)))
    assert "no weights" in problem.what
    assert f"model: random:{folder}" in problem.remedy
    assert sources.weight_problems(f"random:{folder}") == []
    (folder / "part").mkdir()
    (folder / "part" / "model.fp16.safetensors").touch()
    assert sources.weight_problems(str(folder)) == []


def test_a_tokenizer_without_a_chat_template_is_told(tmp_path: Path) -> None:
    folder = model_directory(tmp_path / "model")
    for name in ("random:tiny-llama", f"random:{folder}", str(folder)):
        assert only(sources.template_problems(name)).where == "apply_chat_template"
    (folder / "tokenizer.json").touch()
    (folder / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    for name in (f"random:{folder}", str(folder), "owner/unknown-yet"):
        assert sources.template_problems(name) == []


# --- shape without the network


def test_the_shape_of_a_random_or_local_model_is_known(tmp_path: Path) -> None:
    folder = model_directory(tmp_path / "model", hidden_size=512)
    for name, hidden in (("random:tiny-llama", 256), (f"random:{folder}", 512), (str(folder), 512)):
        found = sources.architecture_of(sources.resolve(name))
        assert found is not None
        assert found.hidden == hidden


def test_the_shape_of_a_hub_model_is_unknown_unless_cached(tmp_path: Path) -> None:
    source = sources.resolve("owner/model")
    assert sources.architecture_of(source, Hub(cache_dir=tmp_path)) is None
    snapshot = tmp_path / "models--owner--model/snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    refs = tmp_path / "models--owner--model/refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    (snapshot / "config.json").write_text(json.dumps(catalogue.config("tiny-llama")))
    found = sources.architecture_of(source, Hub(cache_dir=tmp_path))
    assert found is not None
    assert found.layers == 8
    assert sources.model_problems("owner/model", hub=Hub(NOWHERE.endpoint, tmp_path)) == []


# --- files of a random model


def test_a_random_model_is_written_as_configuration_and_tokenizer_only(
    tmp_path: Path,
) -> None:
    target = sources.materialise(sources.resolve("random:tiny-llama"), tmp_path)
    assert target.parent == tmp_path / "random"
    assert target.name.startswith("tiny-llama-")
    assert sorted(path.name for path in target.iterdir()) == [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    written = json.loads((target / "config.json").read_text())
    assert "_source" not in written
    assert (written["bos_token_id"], written["eos_token_id"], written["pad_token_id"]) == (0, 1, 2)


def test_writing_it_again_gives_the_same_directory_untouched(
    tmp_path: Path,
) -> None:
    source = sources.resolve("random:tiny-llama")
    first = sources.materialise(source, tmp_path)
    stamp = (first / "tokenizer.json").stat().st_mtime_ns
    assert sources.materialise(source, tmp_path) == first
    assert (first / "tokenizer.json").stat().st_mtime_ns == stamp


def test_a_directory_left_half_written_is_completed(tmp_path: Path) -> None:
    source = sources.resolve("random:tiny-llama")
    target = sources.materialise(source, tmp_path)
    whole = (target / "tokenizer.json").read_bytes()
    (target / "config.json").unlink()
    (target / "tokenizer.json").write_bytes(whole[:100])
    assert sources.materialise(source, tmp_path) == target
    assert (target / "tokenizer.json").read_bytes() == whole


def test_another_configuration_gets_another_directory(tmp_path: Path) -> None:
    one = model_directory(tmp_path / "model")
    first = sources.materialise(sources.resolve(f"random:{one}"), tmp_path)
    (one / "config.json").write_text(
        json.dumps({**catalogue.config("tiny-llama"), "num_hidden_layers": 2})
    )
    second = sources.materialise(sources.resolve(f"random:{one}"), tmp_path)
    assert first != second


def test_tokenizer_files_beside_the_configuration_are_used_as_they_are(
    tmp_path: Path,
) -> None:
    folder = model_directory(tmp_path / "model", vocab_size=500)
    for path in tokenizer_files.own_files(tokenizer_files.packaged()):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "model.safetensors").write_bytes(b"weights")
    target = sources.materialise(sources.resolve(f"random:{folder}"), tmp_path)
    assert (target / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert not (target / "model.safetensors").exists()


def test_a_vocabulary_too_small_cannot_be_written(tmp_path: Path) -> None:
    folder = model_directory(tmp_path / "model", vocab_size=100)
    with pytest.raises(ConfigError, match="vocabulary of 100 is smaller than the 1,000"):
        sources.materialise(sources.resolve(f"random:{folder}"), tmp_path)


def test_a_directory_with_weights_is_given_as_it_is(tmp_path: Path) -> None:
    folder = model_directory(tmp_path / "model")
    assert sources.materialise(sources.resolve(str(folder)), tmp_path) == folder
    assert sources.reference(sources.resolve("owner/model"), tmp_path) == "owner/model"


def test_several_processes_may_write_the_same_model(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    arguments = (sources.resolve("random:tiny-llama"), tmp_path)
    processes = [context.Process(target=_write_model, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    (target,) = (tmp_path / "random").iterdir()
    assert len(list(target.iterdir())) == 3  # nothing temporary is left


def _write_model(source: sources.ModelSource, cache_dir: Path) -> None:
    target = sources.materialise(source, cache_dir)
    json.loads((target / "tokenizer.json").read_text(encoding="utf-8"))
