"""All that is known of a backend is what it says about itself; what it does not say is refused."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import llenergymeasure
from llenergymeasure.config.backend_facts import LEFT_TO_ENGINES
from llenergymeasure.config.introspection import fields as fields_of
from llenergymeasure.config.introspection import sample_values
from llenergymeasure.config.models import DecoderConfig, ExperimentConfig
from llenergymeasure.config.registry import BACKENDS, backend_entry
from llenergymeasure.config.rules import contradictions
from tests.support.plugins import installed_plugin

SOURCE = Path(llenergymeasure.__file__).parent
NAMED = {
    "cli/app.py": "the distributions whose versions are told",
    "config/experiment_fields.py": "the backend of an experiment that names none",
    "config/registry.py": "the table of built-in backends",
}
"""Files outside a backend's own package that name one, and why."""

# Settings that need others beside them; of all others a sample of their schema is asked for.
ASKED: dict[str, dict[str, Any]] = {
    "decoder.temperature": {"decoder": {"decoding_strategy": "sampling", "temperature": 0.5}},
    "decoder.top_p": {"decoder": {"decoding_strategy": "sampling", "top_p": 0.5}},
    "decoder.top_k": {"decoder": {"decoding_strategy": "sampling", "top_k": 5}},
    "decoder.speculative_decoding": {
        "decoder": {"speculative_decoding": True, "draft_model": "org/draft"}
    },
    "decoder.draft_model": {"decoder": {"speculative_decoding": True, "draft_model": "org/draft"}},
    "lora": {"lora": {"adapter_id": "org/adapter"}},
    "passthrough_kwargs": {"passthrough_kwargs": {"x": 1}},
    "revision": {"revision": "main"},
}
BY_STRATEGY = ("decoding_strategy", "num_beams")
SETTINGS = (
    *(f"decoder.{name}" for name in DecoderConfig.model_fields if name not in BY_STRATEGY),
    *LEFT_TO_ENGINES,
)


def asked_for(setting: str) -> dict[str, Any]:
    if setting in ASKED:
        return ASKED[setting]
    section, _, name = setting.rpartition(".")
    model = DecoderConfig if section else ExperimentConfig
    field = model.model_fields[name]
    [schema] = [found.schema for found in fields_of(model) if found.name == name]
    value = next(one for one in sample_values(schema) if one != field.default)
    return {section: {name: value}} if section else {name: value}


def refused(setting: str, backend: str) -> dict[str, str]:
    """Give what is said of each field."""
    try:
        ExperimentConfig(model="org/model", backend=backend, **asked_for(setting))
    except ValidationError as error:
        return {".".join(map(str, line["loc"])): line["msg"] for line in error.errors()}
    return {}


def literals(path: Path) -> Iterator[str]:
    """Give the texts and the attributes of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Attribute):
            yield node.attr


def test_no_backend_is_named_outside_its_own_package() -> None:
    found = set()
    for path in SOURCE.rglob("*.py"):
        file = path.relative_to(SOURCE)
        own = file.parts[2] if file.parts[:2] == ("core", "backends") else None
        if named := (set(BACKENDS) - {own}).intersection(literals(path)):
            found.add((str(file), *sorted(named)))

    assert {file for file, *_ in found} == set(NAMED), found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_is_honoured_or_refused_with_the_way_out(setting: str, backend: str) -> None:
    said = refused(setting, backend)

    if setting in backend_entry(backend).honours:
        assert not said
    else:
        assert f"{backend} does not honour it; remove it" in said[setting]


@pytest.mark.parametrize("setting", SETTINGS)
def test_some_engine_honours_each_setting_there_is(setting: str) -> None:
    assert any(setting in facts.honours for facts in BACKENDS.values() if facts.runs_a_model)


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_settings_that_there_are_are_honoured(backend: str) -> None:
    assert backend_entry(backend).honours <= set(SETTINGS)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_backend_that_states_nothing_honours_nothing(tmp_path: Path, setting: str) -> None:
    with installed_plugin(tmp_path):
        said = refused(setting, "echo-engine")

    assert "echo-engine does not honour it" in said[setting]
    assert "or use backend: pytorch" in said[setting]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_setting_that_nobody_knows_yet_is_refused(backend: str) -> None:
    class LaterDecoder(DecoderConfig):
        min_p: float | None = None

    asked = ExperimentConfig(model="org/model", backend=backend).model_copy(
        update={"decoder": LaterDecoder(min_p=0.1)}
    )

    assert [problem.field for problem in contradictions(asked)] == ["decoder.min_p"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_neutral_values_ask_for_nothing(tmp_path: Path, backend: str) -> None:
    neutral = {"repetition_penalty": 1.0, "ignore_eos": False, "top_k": None}

    with installed_plugin(tmp_path):
        ExperimentConfig(model="org/model", backend="echo-engine", decoder=neutral)
    ExperimentConfig(model="org/model", backend=backend, decoder=neutral)


def test_what_was_measured_before_a_rule_came_stays_readable() -> None:
    old = {"model": "org/model", "backend": "scripted", "revision": "main"}

    assert ExperimentConfig.model_validate(old, context={"stored": True}).revision == "main"
