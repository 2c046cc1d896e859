"""What was not equal between the configurations of a study is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.registry import BACKENDS
from llenergymeasure.domain.results import ExperimentResult, MemoryResult, ModelInfo
from llenergymeasure.study.equal_terms import (
    DIFFERENCES,
    unequal_arithmetic,
    unequal_engines,
    unequal_work,
)
from tests.support.make_result import make_resolved, make_result, make_throughput
from tests.support.make_study import make_run, make_study

PYTORCH = {
    "batch_size": 8,
    "batching_strategy": "static",
    "attn_implementation": "sdpa",
    "torch_compile": False,
    "num_threads": 2,
    "compute_dtype": "bfloat16",
}
VLLM = {
    "max_num_seqs": 256,
    "enable_prefix_caching": True,
    "attention_backend": "FLASH_ATTN",
    "quantization": None,
    "num_speculative_tokens": None,
    "worker_threads": [1],
    "client_threads": 2,
    "compute_dtype": "bfloat16",
}
TENSORRT = {"max_batch_size": 64, "quantization": None, "compute_dtype": "bfloat16"}
IN_FORCE = {"pytorch": PYTORCH, "vllm": VLLM, "tensorrt": TENSORRT}
ALWAYS = ["scheduling (TTFT)", "KV cache (peak memory)", "clocks (TTFT, TPOT, ITL)"]


def result(input_tokens: int = 100, output_tokens: int = 64, **fields: Any) -> ExperimentResult:
    config = ExperimentConfig(**{"model": "m", **fields})
    did = make_throughput(input_tokens=input_tokens, output_tokens=output_tokens, passes=1)
    return make_result(config=config, throughput=did)


def run_on(
    backend: str, in_force: dict[str, Any] | None = None, weights: str = "pretrained", **fields: Any
) -> ExperimentResult:
    """Make the result of a backend that says what is in force."""
    config = ExperimentConfig(**{"model": "m", "backend": backend, **fields})
    settings = {**IN_FORCE.get(backend, {}), **(in_force or {})}
    model = ModelInfo.model_validate({"name": config.model, "weights": weights})
    return make_result(config=config, resolved=make_resolved(config, backend=settings, model=model))


def differences(*results: ExperimentResult) -> dict[str, str]:
    """Give the notes on differences by what each is about."""
    notes = [note for note in unequal_engines(results) if note.kind == "difference"]
    return {about: note.text for note in notes for about in note.about}


def both(**fields: Any) -> list[ExperimentResult]:
    return [run_on("pytorch", **fields), run_on("vllm", **fields)]


def test_equal_work_needs_no_word() -> None:
    assert list(unequal_work([(1, result()), (2, result(precision="fp16"))])) == []


def test_an_engine_that_got_other_prompts_is_told() -> None:
    (said,) = unequal_work([(1, result()), (2, result(input_tokens=90, precision="fp16"))])
    assert said == "the engines did not get the same prompts: #1 100, #2 90 tokens a pass"


def test_prompts_that_were_cut_for_one_engine_only_are_told_though_their_count_is_equal() -> None:
    cut = make_throughput(input_tokens=100, output_tokens=64, prompts_truncated=3)
    other = result().model_copy(update={"throughput": cut})
    (said,) = unequal_work([(1, result()), (2, other)])
    assert said == "the engines did not get the same prompts: #1 0, #2 3 were cut"


def test_prompts_of_another_tokenizer_are_told_though_their_count_is_equal() -> None:
    def with_tokenizer(sha256: str | None) -> ExperimentResult:
        plain = result()
        model = plain.resolved.model.model_copy(update={"tokenizer_sha256": sha256})
        resolved = plain.resolved.model_copy(update={"model": model})
        return plain.model_copy(update={"resolved": resolved})

    (said,) = unequal_work([(1, with_tokenizer("aa")), (2, with_tokenizer("bb"))])
    assert said.endswith("their tokenizers differ")
    assert list(unequal_work([(1, with_tokenizer("aa")), (2, with_tokenizer(None))])) == []


def test_answers_that_ended_early_are_told_with_the_remedy() -> None:
    (said,) = unequal_work([(1, result()), (3, result(output_tokens=60))])
    assert "#1 64, #3 60 tokens a pass" in said
    assert "decoder.ignore_eos" in said


def test_work_that_was_meant_to_differ_is_not_compared() -> None:
    assert list(unequal_work([(1, result()), (2, result(input_tokens=50, n=50))])) == []


def test_passes_are_not_counted_twice() -> None:
    twice = make_throughput(input_tokens=200, output_tokens=128, passes=2)
    other = result().model_copy(update={"throughput": twice})
    assert list(unequal_work([(1, result()), (2, other)])) == []


@pytest.mark.parametrize(
    ("precision", "in_force", "said"),
    [
        (
            "bf16",
            {"compute_dtype": "float16"},
            "to compute in bfloat16, and the engine has float16",
        ),
        ("fp32", {"compute_dtype": "bfloat16"}, "to compute in float32"),
        (
            "int4",
            {"quantization": None},
            "means quantised weights, and those of the engine are not",
        ),
        ("fp16", {"compute_dtype": "float16", "quantization": "awq"}, "and the engine has awq"),
    ],
)
def test_an_engine_that_computes_in_something_else_than_asked_is_told(
    precision: str, in_force: dict[str, Any], said: str
) -> None:
    odd = run_on("vllm", in_force, precision=precision)
    (note,) = unequal_arithmetic([(1, run_on("pytorch")), (2, odd), (4, odd)])
    assert note.startswith(f"#2, #4 vllm: precision: {precision} means ")
    assert said in note


def test_an_engine_that_computes_as_asked_or_does_not_say_is_not_told() -> None:
    results = [
        run_on("vllm", {"compute_dtype": "float16"}, precision="fp16"),
        run_on("vllm", {"quantization": "compressed-tensors"}, precision="int8"),
        run_on("scripted", precision="fp8"),
    ]
    assert list(unequal_arithmetic(enumerate(results))) == []


def test_one_engine_has_nothing_to_differ_from() -> None:
    assert list(unequal_engines([run_on("vllm"), run_on("vllm", {"max_num_seqs": 8})])) == []


def test_two_engines_are_told_what_always_differs_with_the_settings_in_force() -> None:
    smaller = run_on("pytorch", {"batch_size": 1})
    said = differences(*both(precision="fp32"), smaller)

    assert list(said)[:3] == ALWAYS
    assert "(static, batch_size 8, 1)" in said["scheduling (TTFT)"]
    assert "up to 256 side by side" in said["scheduling (TTFT)"]
    assert "enable_prefix_caching is true (true)" in said["KV cache (peak memory)"]
    assert "tensorrt" not in "".join(said.values()), "it is not in this study"


@pytest.mark.parametrize(
    ("about", "holds", "otherwise"),
    [
        ("kernels (rounding)", {}, {"precision": "fp32"}),
        ("random weights (energy)", {"weights": "random"}, {}),
        ("sampled tokens", {"decoder": {"decoding_strategy": "sampling"}}, {}),
        ("beam search", {"decoder": {"decoding_strategy": "beam", "num_beams": 2}}, {}),
        ("int8", {"precision": "int8"}, {"precision": "int4"}),
        ("int4", {"precision": "int4"}, {}),
        (
            "speculative decoding",
            {"decoder": {"speculative_decoding": True, "draft_model": "d"}},
            {},
        ),
    ],
)
def test_what_differs_only_sometimes_is_told_only_then(
    about: str, holds: dict[str, Any], otherwise: dict[str, Any]
) -> None:
    assert about in differences(*both(**holds))
    assert about not in differences(*both(**otherwise))
    mixed = [run_on("pytorch", **holds), run_on("vllm", **otherwise)]
    assert about not in differences(*mixed), "it must hold of both"


def test_threads_are_told_of_work_on_a_cpu_and_warm_up_where_there_was_one() -> None:
    on_gpu = both()
    resident = MemoryResult(kind="resident_set", peak_mb=1.0, model_mb=1.0, capacity_mb=2.0)
    cold = on_gpu[0].warmup.model_copy(update={"batches": 0})
    on_cpu = [one.model_copy(update={"memory": resident, "warmup": cold}) for one in on_gpu]

    assert "warm-up" in differences(*on_gpu)
    assert "CPU threads" not in differences(*on_gpu)
    assert "warm-up" not in differences(*on_cpu)
    assert "[1] in the workers, 2 in the calling" in differences(*on_cpu)["CPU threads"]


def test_a_quantised_precision_names_the_method_in_force() -> None:
    vllm = run_on("vllm", {"quantization": "fp8"}, precision="fp8")
    tensorrt = run_on("tensorrt", {"quantization": "FP8"}, precision="fp8")
    said = differences(vllm, tensorrt)["fp8"]
    assert "vllm: vLLM's method fp8; tensorrt: TensorRT-LLM's method FP8" in said


def test_a_setting_that_an_engine_does_not_tell_is_unknown() -> None:
    silent = run_on("vllm", {"max_num_seqs": None})
    assert "up to unknown side" in differences(run_on("pytorch"), silent)["scheduling (TTFT)"]


def test_an_engine_of_which_nothing_is_known_is_named() -> None:
    *_, said = unequal_engines([*both(), run_on("scripted")])
    assert said.text == "what scripted does otherwise than the other engines is not known here"


def test_the_table_speaks_of_backends_and_settings_that_there_are() -> None:
    told = [key for facts in BACKENDS.values() for key in facts.differs]
    assert set(told) == set(DIFFERENCES)
    assert all(told.count(key) > 1 for key in DIFFERENCES), "one way alone is no difference"


def test_the_closing_table_names_what_differs_and_the_summary_file_tells_it() -> None:
    configs = [ExperimentConfig(model="random:m", backend=name) for name in IN_FORCE]

    def run(config: ExperimentConfig, number: int, cycle: int) -> ExperimentResult:
        settings = run_on(config.backend, weights="random").resolved
        return make_run(config, 800 + number * cycle, 200 + number * cycle, resolved=settings)

    study = make_study(run, configs)
    brief = closing_notes(study.summary())

    assert sum(len(note.text) for note in study.notes) > 1500
    assert len(brief) <= 5
    assert "engines differ in scheduling (TTFT), KV cache (peak memory)" in " ".join(brief)
    assert "study_summary.json" in brief[-1]
    assert "random weights" in study.model_dump_json(include={"notes"})


def closing_notes(text: str) -> Sequence[str]:
    lines = text.splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith("- "))
    assert max(map(len, lines)) <= 80
    end = lines.index("", first)
    return lines[first:end]
