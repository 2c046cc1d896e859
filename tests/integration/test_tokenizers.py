"""The packaged tokenizer, its padding, and tokenizers as transformers loads them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.core.models import catalogue, sources, tokenizer_files
from llenergymeasure.core.models.tokenizers import HFTokenizer, load_tokenizer
from llenergymeasure.domain.prompts import Message
from llenergymeasure.exceptions import ConfigError


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A copy of the packaged tokenizer, free to change."""
    return Path(shutil.copytree(tokenizer_files.packaged(), tmp_path / "tokenizer"))


def load(name: str, tmp_path: Path, tokenizer: Path | None = None, **options: Any) -> HFTokenizer:
    """Write the files of a random model and load its tokenizer."""
    pytest.importorskip("transformers", reason="needs the pytorch extra")
    folder = sources.materialise(sources.resolve(f"random:{name}"), tmp_path, tokenizer=tokenizer)
    return load_tokenizer(str(folder), **options)


def test_padding_fills_every_id_once_and_keeps_the_others(tokenizer: Path) -> None:
    text = (tokenizer / "tokenizer.json").read_text(encoding="utf-8")
    before = json.loads(text)["model"]["vocab"]
    after = json.loads(tokenizer_files.padded(text, 1024))["model"]["vocab"]
    assert sorted(after.values()) == list(range(1024))
    assert {token: after[token] for token in before} == before
    assert all(tokenizer_files.is_filler(token) for token in after.keys() - before.keys())


def test_the_fingerprint_is_that_of_tokenizer_json_where_there_is_one(tokenizer: Path) -> None:
    first = tokenizer_files.fingerprint(lambda name: _existing(tokenizer / name))
    (tokenizer / "tokenizer_config.json").write_text("{}")
    assert tokenizer_files.fingerprint(lambda name: _existing(tokenizer / name)) == first
    (tokenizer / "tokenizer.json").write_text("{}")
    assert tokenizer_files.fingerprint(lambda name: _existing(tokenizer / name)) != first


def test_without_tokenizer_json_all_files_count(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text("{}")
    first = tokenizer_files.fingerprint(lambda name: _existing(tmp_path / name))
    (tmp_path / "merges.txt").write_text("a b")
    second = tokenizer_files.fingerprint(lambda name: _existing(tmp_path / name))
    assert first is not None
    assert first != second
    assert tokenizer_files.fingerprint(lambda name: None) is None


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


@pytest.mark.parametrize("name", ["tiny-llama", "llama-3.1-8b", "qwen2.5-7b", "mistral-7b"])
def test_the_padded_tokenizer_has_exactly_the_vocabulary_of_the_model(
    tmp_path: Path, name: str
) -> None:
    assert sources.model_problems(f"random:{name}") == []
    assert len(load(name, tmp_path).inner) == catalogue.config(name)["vocab_size"]


@pytest.mark.parametrize(
    "text", ["<|filler_1001|>", "x<|filler_1023|> <|filler_1010|>", "3.14 \u00e9\u4e16\U0001f600"]
)
def test_filler_never_comes_out_of_text_and_text_comes_back(tmp_path: Path, text: str) -> None:
    loaded = load("tiny-llama", tmp_path)
    assert max(loaded.encode(text)) < 1000
    assert loaded.inner.decode(loaded.encode(text)) == text


def test_ordinary_ids_hold_neither_specials_nor_filler(tmp_path: Path) -> None:
    loaded = load("tiny-llama", tmp_path)
    assert loaded.ordinary_ids() == tuple(range(3, 1000))
    assert loaded.ordinary_ids() is loaded.ordinary_ids()


def test_a_loaded_tokenizer_knows_the_hash_of_its_file(tmp_path: Path) -> None:
    tiny, llama = load("tiny-llama", tmp_path), load("llama-3.1-8b", tmp_path)
    assert tiny.sha256 == tokenizer_files.fingerprint(tiny.find)
    assert tiny.sha256 != llama.sha256


def test_encoding_begins_as_the_tokenizer_says(tmp_path: Path, tokenizer: Path) -> None:
    plain = load("tiny-llama", tmp_path).encode("the")
    begin_with_bos(tokenizer)
    assert load("tiny-llama", tmp_path, tokenizer).encode("the") == [0, *plain]


def test_the_chat_template_wraps_the_prompt_without_a_second_beginning(
    tmp_path: Path, tokenizer: Path
) -> None:
    begin_with_bos(tokenizer)
    template = "<s>{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[answer]"
    (tokenizer / "chat_template.jinja").write_text(template)
    chat = load("tiny-llama", tmp_path, tokenizer, apply_chat_template=True)
    ids = chat.encode("the")
    assert chat.inner.decode(ids) == "<s>[user]the[answer]"
    assert ids.count(0) == 1


TEMPLATE = (
    "{% if messages[0].role == 'system' and messages[0].content == 'no' %}"
    "{{ raise_exception('none of that') }}{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[answer]{% endif %}"
)


def test_a_chat_is_what_the_template_makes_of_all_its_turns(
    tmp_path: Path, tokenizer: Path
) -> None:
    (tokenizer / "chat_template.jinja").write_text(TEMPLATE)
    loaded = load("tiny-llama", tmp_path, tokenizer)
    turns = [Message("system", "be brief"), Message("user", "the"), Message("assistant", "a")]
    ids = loaded.encode_chat([*turns, Message("user", "no")])
    expected = "[system]be brief[user]the[assistant]a[user]no[answer]"
    assert loaded.inner.decode(ids) == expected
    # As transformers itself gives it, and vLLM, which hands the messages to the same call.
    own = loaded.inner.apply_chat_template(
        [one._asdict() for one in (*turns, Message("user", "no"))],
        add_generation_prompt=True,
        return_dict=False,
    )
    assert ids == own


def test_a_chat_that_the_template_refuses_is_a_configuration_error(
    tmp_path: Path, tokenizer: Path
) -> None:
    (tokenizer / "chat_template.jinja").write_text(TEMPLATE)
    loaded = load("tiny-llama", tmp_path, tokenizer)
    with pytest.raises(ConfigError, match="does not take turns of system, user: none of that"):
        loaded.encode_chat([Message("system", "no"), Message("user", "the")])


def test_a_chat_needs_a_template(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no chat template; choose an instruction-tuned"):
        load("tiny-llama", tmp_path).encode_chat([Message("user", "the")])


def begin_with_bos(tokenizer: Path) -> None:
    """Have the tokenizer put a beginning of sequence before every text, as Llama's does."""
    data = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    text = {"Sequence": {"id": "A", "type_id": 0}}
    data["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, text],
        "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    }
    (tokenizer / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")


def test_the_chat_template_needs_a_template(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="apply_chat_template: false"):
        load("tiny-llama", tmp_path, apply_chat_template=True)


def test_a_tokenizer_that_cannot_be_loaded_is_a_configuration_error(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs the pytorch extra")
    (tmp_path / "config.json").write_text(json.dumps(catalogue.config("tiny-llama")))
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_tokenizer(str(tmp_path))


def test_every_architecture_cuts_text_alike(tmp_path: Path) -> None:
    text = "In 1984, 12345 people    said: don't!\n\n  ok"
    names = ("tiny-llama", "qwen2.5-0.5b", "mistral-7b")
    tiny, *others = (load(name, tmp_path).encode(text) for name in names)
    assert others == [tiny, tiny]


@pytest.mark.parametrize("name", ["tiny-llama", "qwen2.5-0.5b", "mistral-7b"])
def test_the_automatic_class_of_transformers_stays_within_the_vocabulary(
    tmp_path: Path, name: str
) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the pytorch extra")
    folder = sources.materialise(sources.resolve(f"random:{name}"), tmp_path)
    inner = transformers.AutoTokenizer.from_pretrained(folder)
    assert len(inner) == catalogue.config(name)["vocab_size"]
