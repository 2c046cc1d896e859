"""What tells a model from another one under the same name."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.models import identity
from llenergymeasure.core.models.hub import Hub
from llenergymeasure.exceptions import ExperimentError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def header(**tensors: int) -> bytes:
    """Give what a safetensors file begins with: one vector a name."""
    described, end = {}, 0
    for name, length in tensors.items():
        described[name] = {
            "dtype": "F32",
            "shape": [length],
            "data_offsets": [end, end + 4 * length],
        }
        end += 4 * length
    text = json.dumps(described).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of 2 MB."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"hidden_size": 8}')
    (folder / "model.safetensors").write_bytes(header(wte=500_000) + os.urandom(2_000_000))
    return folder


def of(folder: Path, **fields: object) -> dict[str, str]:
    config = ExperimentConfig.model_validate({"model": str(folder), **fields})
    return identity.of_models(config)


def rewrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at, os.SEEK_SET if at >= 0 else os.SEEK_END)
        file.write(content)


def test_a_directory_is_told_by_its_files_and_not_by_when_they_were_copied(folder: Path) -> None:
    before = of(folder)
    assert before["model"].startswith("files ")
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    (folder / "README.md").write_text("how it was trained")
    moved = folder.rename(folder.with_name("moved"))
    assert of(moved) == before


@pytest.mark.parametrize("change", ["setting", "name", "size", "tensors", "trained on", "end"])
def test_a_directory_whose_files_change_is_another_model(folder: Path, change: str) -> None:
    before, weights = of(folder), folder / "model.safetensors"
    if change == "setting":
        (folder / "config.json").write_text('{"hidden_size": 9}')
    elif change == "name":
        weights.rename(folder / "other.safetensors")
    elif change == "size":
        weights.write_bytes(weights.read_bytes() + b"\0")
    elif change == "tensors":
        rewrite(weights, 0, header(wpe=500_000))
    elif change == "trained on":
        rewrite(weights, 1_000_000, os.urandom(500_000))
    else:
        rewrite(weights, -8, b"\1" * 8)
    assert of(folder)["model"] != before["model"]


def test_a_model_of_gigabytes_is_not_read_as_a_whole(folder: Path) -> None:
    with (folder / "model-00002.safetensors").open("wb") as file:
        file.truncate(50 << 30)  # takes no room on the disk, and minutes to read
    assert of(folder)["model"].startswith("files ")


def test_weights_in_folders_below_count_where_there_are_none_above(folder: Path) -> None:
    (folder / "original").mkdir()
    (folder / "model.safetensors").rename(folder / "original" / "model.safetensors")
    before = of(folder)
    rewrite(folder / "original" / "model.safetensors", 0, b"\1" * 64)
    assert of(folder) != before


def test_random_weights_are_told_by_their_architecture(tmp_path: Path) -> None:
    config = ExperimentConfig(model="random:tiny-llama")
    assert identity.of_models(config)["model"].startswith("config ")
    (tmp_path / "config.json").write_text('{"hidden_size": 8}')
    before = of(Path(f"random:{tmp_path}"))
    (tmp_path / "config.json").write_text('{"hidden_size": 16}')
    assert of(Path(f"random:{tmp_path}")) != before


@pytest.mark.parametrize("settings", [{"apply_chat_template": True}, {"dataset": "chats.jsonl"}])
@pytest.mark.parametrize("file", ["chat_template.jinja", "tokenizer_config.json"])
def test_another_chat_template_is_another_input_of_random_weights(
    tmp_path: Path, settings: dict[str, object], file: str
) -> None:
    (tmp_path / "config.json").write_text('{"hidden_size": 8}')
    (tmp_path / "tokenizer.json").write_text("{}")
    model, template = Path(f"random:{tmp_path}"), {"chat_template": "{{ messages }}"}
    (tmp_path / file).write_text(json.dumps(template))
    before = of(model, **settings)
    assert of(model, **settings) == before
    (tmp_path / file).write_text(json.dumps({"chat_template": "Be brief. {{ messages }}"}))
    now = of(model, **settings)
    assert now["model"] == before["model"]
    assert now["chat_template"] != before["chat_template"]
    config = ExperimentConfig.model_validate({"model": str(model), **settings})
    with pytest.raises(ExperimentError, match=r"the chat template .* when the study began"):
        identity.refuse_others(config, before, now)
    identity.refuse_others(config, {"model": before["model"]}, now)  # of an earlier version


def test_a_chat_template_that_is_not_applied_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"hidden_size": 8}')
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "chat_template" not in of(Path(f"random:{tmp_path}"), dataset="chats.jsonl")
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert "chat_template" not in of(Path(f"random:{tmp_path}"))


def test_a_model_on_the_hub_is_told_by_what_the_engine_says_else_by_the_cache(
    tmp_path: Path,
) -> None:
    hub = Hub(cache_dir=tmp_path)
    repository = tmp_path / "models--org--name"
    (repository / "snapshots" / COMMIT).mkdir(parents=True)
    (repository / "snapshots" / COMMIT / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    config = ExperimentConfig(model="org/name")
    assert identity.of_models(config, hub=hub) == {"model": f"commit {COMMIT}"}
    assert identity.of_models(config, "abc", hub=hub) == {"model": "commit abc"}
    assert identity.of_models(ExperimentConfig(model="org/other"), hub=hub) == {}


def test_a_commit_in_the_path_of_a_directory_is_no_commit_of_the_model(folder: Path) -> None:
    config = ExperimentConfig(model=str(folder))
    assert identity.of_models(config, COMMIT) == of(folder)


def test_an_adapter_and_a_draft_model_are_inputs_too(folder: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"r": 8}')
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    fields = {
        "lora": {"adapter_path": str(adapter)},
        "decoder": {"speculative_decoding": True, "draft_model": str(folder)},
    }
    before = of(folder, **fields)
    assert before["decoder.draft_model"] == before["model"]
    (adapter / "adapter_model.safetensors").write_bytes(b"trained")
    after = of(folder, **fields)
    assert after["lora"] != before["lora"]
    assert after["model"] == before["model"]


def test_an_engine_that_loads_no_model_has_none() -> None:
    assert identity.of_models(ExperimentConfig(model="m", backend="scripted")) == {}


def test_other_inputs_are_refused_with_both_identities_and_unknown_ones_pass() -> None:
    config = ExperimentConfig(model="m", dataset="prompts.jsonl")
    then = {"dataset": "a" * 64, "model": "commit 1", "tokenizer": "t"}
    identity.refuse_others(config, then, {"dataset": "a" * 64})
    with pytest.raises(ExperimentError) as refused:
        identity.refuse_others(config, then, {"dataset": "b" * 64, "model": "commit 2"})
    said = refused.value.message
    assert f"the prompts (prompts.jsonl): {'a' * 12} when the study began, {'b' * 12} now" in said
    assert "the model (m): commit 1 when the study began, commit 2 now" in said
    assert "run this as a study of its own" in said
