from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llenergymeasure.config.models import ExperimentConfig, StudyConfig
from llenergymeasure.exceptions import StudyError
from llenergymeasure.study.grid import Expansion, check_size, expand


def expansion(**fields: Any) -> Expansion:
    return expand(StudyConfig(**{"model": "m", **fields}))


def reasons(found: Expansion) -> set[str]:
    return {skip.reason for skip in found.skipped}


def test_a_sweep_is_a_product_with_the_last_key_varying_fastest():
    found = expansion(sweep={"precision": ["fp32", "bf16"], "n": [1, 2]})

    assert [(c.precision, c.n) for c in found.experiments] == [
        ("fp32", 1),
        ("fp32", 2),
        ("bf16", 1),
        ("bf16", 2),
    ]
    assert (found.generated, found.merged, found.skipped) == (4, 0, ())
    assert found.fingerprints == tuple(c.fingerprint() for c in found.experiments)


def test_each_backend_has_a_grid_of_its_own():
    found = expansion(
        backend=["pytorch", "vllm"],
        sweep={
            "precision": ["bf16", "fp16"],
            "pytorch.batch_size": [2, 8, 32],
            "vllm.max_num_seqs": [64, 256],
        },
    )

    by_backend = [config.backend for config in found.experiments]
    assert (by_backend.count("pytorch"), by_backend.count("vllm")) == (6, 4)
    assert all(config.vllm is None for config in found.experiments[:6])
    assert {config.vllm.max_num_seqs for config in found.experiments[6:]} == {64, 256}  # type: ignore[union-attr]


def test_scoped_keys_without_a_backend_imply_the_backends_they_name():
    found = expansion(sweep={"vllm.block_size": [8], "tensorrt.tp_size": [2]})

    assert [config.backend for config in found.experiments] == ["vllm", "tensorrt"]
    assert expansion(sweep={"n": [1]}).experiments[0].backend == "pytorch"


def test_nested_keys_vary_inside_a_section_and_leave_the_rest_of_it():
    found = expansion(
        decoder={"decoding_strategy": "sampling", "top_k": 5},
        sweep={"decoder.temperature": [0.5, 0.7], "warmup.n_warmup": [1]},
    )

    assert [c.decoder.temperature for c in found.experiments] == [0.5, 0.7]
    assert {c.decoder.top_k for c in found.experiments} == {5}
    assert {c.warmup.n_warmup for c in found.experiments} == {1}


def test_a_whole_section_can_be_swept_and_null_removes_it():
    found = expansion(sweep={"lora": [None, {"adapter_id": "a/b"}]})

    assert [c.lora.adapter_id if c.lora else None for c in found.experiments] == [None, "a/b"]


def test_sections_of_the_other_listed_backends_are_left_out():
    first, second = expansion(
        backend=["pytorch", "vllm"], pytorch={"batch_size": 4}, vllm={"block_size": 16}
    ).experiments

    assert (first.vllm, second.pytorch) == (None, None)
    assert first.pytorch is not None
    assert first.pytorch.batch_size == 4


# Entries ------------------------------------------------------------------------------------------


def test_entries_are_laid_over_the_defaults_beside_the_grid():
    found = expansion(
        n=5,
        pytorch={"batch_size": 4, "num_threads": 2},
        sweep={"precision": ["fp32"]},
        experiments=[{"precision": "fp16", "pytorch": {"batch_size": 8}}],
    )

    grid, entry = found.experiments
    assert (grid.precision, entry.precision, entry.n) == ("fp32", "fp16", 5)
    assert entry.pytorch is not None
    assert (entry.pytorch.batch_size, entry.pytorch.num_threads) == (8, 2)


def test_without_a_sweep_the_entries_are_all_there_is():
    assert [c.n for c in expansion(experiments=[{"n": 1}, {"n": 2}]).experiments] == [1, 2]


def test_an_entry_names_its_backend_implies_it_or_runs_on_every_one():
    found = expansion(
        backend=["pytorch", "vllm"],
        pytorch={"batch_size": 4},
        experiments=[{"backend": "vllm", "n": 1}, {"vllm": {"block_size": 8}}, {"n": 3}],
    )

    assert [c.backend for c in found.experiments] == ["vllm", "vllm", "pytorch", "vllm"]


def test_a_complete_experiment_is_taken_as_it_is():
    one = ExperimentConfig(model="x", n=2)

    assert expansion(n=9, experiments=[one]).experiments == (one,)


def test_an_entry_may_hand_options_to_the_engine_it_names():
    found = expansion(
        backend=["pytorch", "vllm"],
        experiments=[{"backend": "vllm", "passthrough_kwargs": {"seed": 1}}],
    )

    assert found.experiments[0].passthrough_kwargs == {"seed": 1}


# Skips and merges ---------------------------------------------------------------------------------


def test_a_combination_that_contradicts_itself_is_skipped_with_a_reason_on_one_line():
    found = expansion(
        sweep={
            "decoder.decoding_strategy": ["greedy", "sampling"],
            "decoder.temperature": [None, 0.7],
        }
    )

    assert (found.generated, len(found.experiments)) == (4, 3)
    (skip,) = found.skipped
    assert skip.reason == "decoder.temperature: has no effect under greedy decoding"
    assert skip.config == {
        "backend": "pytorch",
        "decoder.decoding_strategy": "greedy",
        "decoder.temperature": 0.7,
    }


def test_a_value_that_reads_like_a_remedy_stays_in_the_reason():
    found = expansion(backend="vllm", sweep={"vllm.quantization": [None, "odd; set it"]})

    (reason,) = reasons(found)
    assert reason.startswith("vllm.quantization: 'odd; set it' is no method whose precision")


def test_what_a_backend_cannot_run_is_skipped_for_it_alone():
    found = expansion(backend=["pytorch", "vllm"], sweep={"precision": ["bf16", "fp8"]})

    assert [(c.backend, c.precision) for c in found.experiments] == [
        ("pytorch", "bf16"),
        ("vllm", "bf16"),
        ("vllm", "fp8"),
    ]
    assert reasons(found) == {
        "precision: pytorch cannot run fp8; it has fp32, fp16, bf16, int8, int4"
    }


def test_sweeping_new_tokens_over_prompts_that_have_their_own_is_a_skip():
    found = expansion(
        dataset={"synthetic": {"n": 4, "output_len": 8}}, sweep={"max_new_tokens": [8, 16, 32]}
    )

    assert [c.max_new_tokens for c in found.experiments] == [8]
    assert reasons(found) == {
        f"max_new_tokens: {n} has no effect; dataset.synthetic.output_len: 8 decides"
        for n in (16, 32)
    }


def test_so_it_is_over_a_file_whose_prompts_all_have_their_own():
    study = StudyConfig(model="m", dataset="p.jsonl", sweep={"max_new_tokens": [8, 16], "n": [1]})
    found = expand(study, own_lengths=lambda config: config.dataset == "p.jsonl")

    assert [c.max_new_tokens for c in found.experiments] == [8]
    assert reasons(found) == {
        "max_new_tokens: 16 has no effect; every prompt of the dataset has its own"
    }
    assert len(expand(study).experiments) == 2


@pytest.mark.parametrize(
    ("sweep", "more"),
    [
        ({"n": [1, 1]}, {}),
        ({"pytorch.batch_size": [None, 1]}, {}),
        ({"pytorch.torch_compile": [None, False]}, {}),
        ({"pytorch": [None, {}]}, {}),
        ({"decoder.repetition_penalty": [None, 1.0]}, {}),
        ({"decoder.temperature": [None, 1.0]}, {"decoder": {"decoding_strategy": "sampling"}}),
        ({"decoder.top_p": [None, 1.0]}, {"decoder": {"decoding_strategy": "sampling"}}),
        ({"decoder.ignore_eos": [False, True]}, {"model": "random:tiny-llama"}),
        ({"decoder.ignore_eos": [False, True]}, {"dataset": {"synthetic": {}}}),
        ({"pytorch.load_in_4bit": [None, True]}, {"precision": "int4"}),
        ({"vllm.tensor_parallel_size": [None, 1]}, {}),
        ({"pytorch.batch_size": [8, 16]}, {"n": 4}),
        ({"dataset.synthetic.n": [None, 7]}, {"n": 7, "dataset": {"synthetic": {}}}),
        ({"max_input_tokens": [None, 512]}, {"dataset": {"synthetic": {}}}),
    ],
)
def test_two_spellings_of_one_computation_are_one_experiment(sweep, more):
    found = expansion(sweep=sweep, **more)

    assert (len(found.experiments), found.generated, found.merged) == (1, 2, 1)


@pytest.mark.parametrize(
    ("sweep", "more"),
    [
        ({"pytorch.batch_size": [None, 2]}, {}),
        ({"decoder.ignore_eos": [False, True]}, {}),
        ({"max_input_tokens": [None, 512]}, {}),
        ({"decoder.temperature": [None, 0.9]}, {"decoder": {"decoding_strategy": "sampling"}}),
        ({"dataset.synthetic.seed": [0, 1]}, {}),
        ({"scripted.batch_size": [1, 2]}, {"backend": "scripted"}),
        ({"baseline.duration_seconds": [5, 9]}, {}),
    ],
)
def test_what_changes_the_computation_stays_apart(sweep, more):
    assert len(expansion(sweep=sweep, **more).experiments) == 2


def test_a_cold_start_takes_the_warm_up_away_from_every_experiment():
    found = expansion(
        cold_start=True,
        sweep={"n": [1]},
        experiments=[{"n": 2}, ExperimentConfig(model="x")],
    )

    assert len(found.experiments) == 3
    assert {c.warmup.n_warmup for c in found.experiments} == {0}
    assert {c.warmup.thermal_floor_seconds for c in found.experiments} == {0}


def test_a_design_without_a_valid_experiment_is_an_error_with_the_reasons_counted():
    with pytest.raises(StudyError) as caught:
        expansion(sweep={"precision": ["fp8"], "n": [1, 2], "decoder.top_k": [None, 3]})

    message = caught.value.message
    assert message.startswith("none of the 4 combinations of the design can run:\n")
    assert "2 x precision: pytorch cannot run fp8" in message
    assert message.count("decoder.top_k: has no effect under greedy decoding") == 1


def test_a_section_and_a_field_of_it_may_both_be_swept():
    sampling = {"decoding_strategy": "sampling", "top_k": 3}
    sweep = {"decoder.temperature": [0.7], "decoder": [sampling]}

    (config,) = expansion(sweep=sweep).experiments

    assert (config.decoder.temperature, config.decoder.top_k) == (0.7, 3)


def test_a_grid_of_a_million_is_refused_with_its_count_before_anything_is_built():
    sweep = {"n": list(range(1, 1001)), "max_new_tokens": list(range(1, 1001))}

    with pytest.raises(StudyError, match=r"1,000,000 combinations, more than 200,000.*--yes"):
        check_size(StudyConfig(model="m", sweep=sweep))


def test_a_large_grid_that_was_confirmed_is_written_out():
    study = StudyConfig(model="m", sweep={"n": list(range(1, 21))})

    with pytest.raises(StudyError, match="20 combinations, more than 19"):
        check_size(study, limit=19)
    check_size(study, limit=20)
    assert len(expand(study).experiments) == 20


# Properties ---------------------------------------------------------------------------------------

DIMENSIONS = {
    "precision": ["fp32", "fp16", "bf16", "int8", "fp8"],
    "n": [1, 2, 7, 100],
    "max_new_tokens": [1, 16, 128],
    "decoder.decoding_strategy": ["greedy", "sampling", "beam"],
    "decoder.temperature": [None, 0.5, 1.0],
    "decoder.ignore_eos": [False, True],
    "pytorch.batch_size": [None, 1, 8],
    "pytorch.load_in_8bit": [None, True, False],
    "vllm.max_num_seqs": [None, 64],
    "vllm.quantization": [None, "fp8", "awq"],
}
sweeps = st.dictionaries(st.sampled_from(sorted(DIMENSIONS)), st.just(None), max_size=5).flatmap(
    lambda keys: st.fixed_dictionaries(
        {
            key: st.lists(st.sampled_from(DIMENSIONS[key]), min_size=1, max_size=3)
            for key in sorted(keys)
        }
    )
)


def written_out(**fields: Any) -> Expansion | None:
    try:
        return expansion(backend=["pytorch", "vllm"], n=3, **fields)
    except StudyError:
        return None


@given(sweeps)
def test_nothing_is_lost_and_nothing_is_there_twice(sweep):
    found = written_out(sweep=sweep)
    if found is None:
        return

    assert len(found.experiments) + len(found.skipped) + found.merged == found.generated
    assert len(set(found.fingerprints)) == len(found.fingerprints) == len(found.experiments)
    sizes = {"pytorch": 1, "vllm": 1}
    for key, values in sweep.items():
        for backend in sizes:
            if key.partition(".")[0] in (backend, "precision", "n", "max_new_tokens", "decoder"):
                sizes[backend] *= len(values)
    assert found.generated == sum(sizes.values())


@given(sweeps)
def test_every_experiment_of_a_grid_is_valid_by_itself(sweep):
    found = written_out(sweep=sweep)
    for config in found.experiments if found else ():
        again = ExperimentConfig.model_validate_json(config.model_dump_json(exclude_unset=True))
        assert again == config
        assert again.fingerprint() == config.fingerprint()


@given(sweeps, st.randoms(use_true_random=False))
def test_the_order_of_keys_and_values_does_not_change_what_is_measured(sweep, random):
    keys = list(sweep)
    random.shuffle(keys)
    turned = {key: random.sample(sweep[key], len(sweep[key])) for key in keys}
    one, other = written_out(sweep=sweep), written_out(sweep=turned)

    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert sorted(one.fingerprints) == sorted(other.fingerprints)
        assert (one.merged, len(one.skipped)) == (other.merged, len(other.skipped))
