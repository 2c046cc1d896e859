from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llenergymeasure.config.base import flatten, nest, put
from llenergymeasure.config.canonical import canonical_hash, design_hash
from llenergymeasure.config.models import ExperimentConfig, StudyConfig
from llenergymeasure.study.grid import expand

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def test_the_hash_is_the_start_of_sha256_over_canonical_json():
    text = '{"a":"ü","b":[1,2.5,null,true]}'

    assert (
        canonical_hash({"b": [1, 2.5, None, True], "a": "ü"})
        == (hashlib.sha256(text.encode()).hexdigest()[:16])
    )


@given(st.dictionaries(st.text(), JSON, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_count(data, random):
    items = list(data.items())
    random.shuffle(items)

    assert canonical_hash(dict(items)) == canonical_hash(data)


@pytest.mark.parametrize(("one", "two"), [({"a": 1}, {"a": "1"}), ([1, 2], [2, 1]), ({}, None)])
def test_different_data_has_a_different_hash(one, two):
    assert canonical_hash(one) != canonical_hash(two)


NAMES = st.text("abcdef", min_size=1, max_size=4)
NESTED = st.dictionaries(
    NAMES, st.recursive(st.integers(), lambda v: st.dictionaries(NAMES, v, min_size=1)), max_size=4
)


@given(NESTED)
def test_dotted_names_lead_back_to_the_nested_data(data):
    assert nest(dict(flatten(data))) == data


def test_a_value_is_put_beside_what_is_there_without_touching_the_original():
    inner = {"kept": 1}
    data = {"section": inner}
    put(data, "section.added", 2)
    put(data, "other.deep", 3)

    assert data == {"section": {"kept": 1, "added": 2}, "other": {"deep": 3}}
    assert inner == {"kept": 1}


# Experiments --------------------------------------------------------------------------------------

GOLDEN = ExperimentConfig(
    model="meta-llama/Llama-3.1-8B",
    precision="fp16",
    n=20,
    decoder={"decoding_strategy": "sampling", "temperature": 0.7},
    pytorch={"batch_size": 8},
)


def design_of(study: StudyConfig) -> str:
    return design_hash(expand(study).fingerprints, cold_start=study.cold_start)


def test_the_hash_of_a_known_experiment_never_changes():
    assert GOLDEN.fingerprint() == "09ac5894ee7e6cec"
    assert design_of(StudyConfig(experiments=(GOLDEN,))) == "cc2a66a95eacdeaa"


def test_the_hash_of_an_experiment_that_says_only_its_model_never_changes():
    assert ExperimentConfig(model="random:tiny-llama").fingerprint() == "db55245fee980427"


def test_defaults_that_are_written_out_do_not_change_the_hash():
    written = ExperimentConfig.model_validate(GOLDEN.model_dump())

    assert written == GOLDEN
    assert written.fingerprint() == GOLDEN.fingerprint()


def test_a_section_without_settings_does_not_change_the_hash():
    plain = ExperimentConfig(model="m").fingerprint()

    assert ExperimentConfig(model="m", pytorch={}).fingerprint() == plain
    assert ExperimentConfig(model="m", pytorch={"batch_size": None}).fingerprint() == plain
    assert ExperimentConfig(model="m", passthrough_kwargs={}).fingerprint() == plain


def test_a_synthetic_dataset_of_default_shape_is_not_the_default_dataset():
    synthetic = ExperimentConfig(model="m", dataset={"synthetic": {}})

    assert synthetic.fingerprint() != ExperimentConfig(model="m").fingerprint()


def of_four(**pytorch: object) -> str:
    return ExperimentConfig(model="m", n=4, pytorch=pytorch).fingerprint()


def test_a_static_batch_is_no_larger_than_the_prompts_there_are():
    assert of_four(batch_size=4) == of_four(batch_size=8) == of_four(batch_size=32)
    assert of_four(batch_size=3) != of_four(batch_size=4)
    assert of_four(batch_size=2, num_processes=2) == of_four(batch_size=4, num_processes=2)
    assert of_four(batch_size=1, num_processes=3) != of_four(batch_size=2, num_processes=3)


def test_a_dynamic_batch_is_a_budget_that_more_prompts_than_there_are_change():
    dynamic = {"batching_strategy": "dynamic"}

    assert of_four(batch_size=4, **dynamic) != of_four(batch_size=8, **dynamic)


@pytest.mark.parametrize(
    "change",
    [
        {"n": 21},
        {"precision": "bf16"},
        {"pytorch": {"batch_size": 9}},
        {"energy_backend": "none"},
        {"passthrough_kwargs": {"a": 1}},
    ],
)
def test_any_other_setting_changes_the_hash(change):
    changed = ExperimentConfig.model_validate({**GOLDEN.model_dump(), **change})

    assert changed.fingerprint() != GOLDEN.fingerprint()


def test_the_design_does_not_depend_on_the_order_of_experiments_or_the_name():
    one, two = ExperimentConfig(model="a"), ExperimentConfig(model="b")
    study = StudyConfig(experiments=(one, two))

    assert design_of(study) == design_of(StudyConfig(name="x", experiments=(two, one)))
    assert design_of(study) != design_of(StudyConfig(experiments=(one,)))


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=12)
counts = st.integers(1, 10_000)
experiments = st.builds(
    lambda strategy, **fields: ExperimentConfig.model_validate({**fields, "decoder": strategy}),
    model=texts.map(lambda text: f"org/{text}"),
    n=counts,
    max_input_tokens=st.none() | counts,
    max_new_tokens=counts,
    random_seed=st.integers(0, 2**32 - 1),
    precision=st.sampled_from(["fp32", "fp16", "bf16", "int8", "int4"]),
    dataset=texts,
    energy_backend=st.sampled_from(["auto", "nvml", "codecarbon"]),
    window=st.fixed_dictionaries(
        {"min_duration_seconds": st.floats(0, 1e6), "phases": st.just("differential")}
    ),
    pytorch=st.none() | st.fixed_dictionaries({}, optional={"batch_size": st.none() | counts}),
    passthrough_kwargs=st.none()
    | st.dictionaries(
        texts.filter(lambda key: key.isalpha() and "token" not in key.lower()),
        st.none() | st.booleans() | st.integers(-9, 9) | st.lists(st.floats(-1, 1), max_size=3),
        max_size=3,
    ),
    strategy=st.one_of(
        st.just({}),
        st.fixed_dictionaries(
            {"decoding_strategy": st.just("sampling")},
            optional={"temperature": st.floats(0.1, 2), "top_k": counts},
        ),
        st.just({"decoding_strategy": "beam", "num_beams": 4}),
    ),
)


@given(experiments)
def test_json_brings_the_same_experiment_back(config):
    again = ExperimentConfig.model_validate_json(config.model_dump_json())

    assert again == config
    assert again.fingerprint() == config.fingerprint()


@given(experiments, st.randoms(use_true_random=False))
def test_the_order_of_fields_does_not_change_the_hash(config, random):
    shuffled = list(config.model_dump(mode="json").items())
    random.shuffle(shuffled)

    assert ExperimentConfig.model_validate(dict(shuffled)).fingerprint() == config.fingerprint()


@given(experiments)
def test_what_is_hashed_is_enough_to_build_the_experiment_again(config):
    asked = json.loads(config.model_dump_json(exclude_defaults=True))

    assert ExperimentConfig.model_validate(asked) == config
