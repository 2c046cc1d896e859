"""The pure parts of the tensorrt backend: arguments, times, problems, errors."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from llenergymeasure.config.experiment import STORED
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.protocol import Request
from llenergymeasure.core.backends.shared.engines import Finished, ServedTrace
from llenergymeasure.core.backends.shared.nvml_devices import Device, MemoryUse, NvmlMemory
from llenergymeasure.core.backends.shared.processes import EngineProcesses
from llenergymeasure.core.backends.tensorrt import FACTS
from llenergymeasure.core.backends.tensorrt import library as tensorrt_library
from llenergymeasure.core.backends.tensorrt.arguments import (
    DECIDED_ELSEWHERE,
    OURS,
    WORDS,
    engine_arguments,
    sampling_arguments,
)
from llenergymeasure.core.backends.tensorrt.library import (
    ENVIRONMENT,
    Asked,
    TensorRTLibrary,
    checked,
    workers,
)
from llenergymeasure.core.backends.tensorrt.problems import found
from llenergymeasure.domain.samples import MemoryReading
from llenergymeasure.exceptions import BackendError
from tests.support import fake_tensorrt_llm as fake

A100 = Device("GPU-1", "NVIDIA A100", (8, 0))
H100 = Device("GPU-2", "NVIDIA H100", (9, 0))
REQUEST = Request(3, (5, 6, 7), 8)
ENDS = (2, 3)
SECTION: dict[str, Any] = {
    "max_batch_size": 4,
    "max_num_tokens": 9000,
    "max_seq_len": 512,
    "tp_size": 4,
    "pp_size": 2,
    "moe_tp_size": 2,
    "moe_ep_size": 2,
    "free_gpu_memory_fraction": 0.5,
    "kv_cache_dtype": "fp8",
    "enable_block_reuse": False,
    "enable_chunked_prefill": True,
    "cuda_graphs": False,
    "attn_backend": "FLASHINFER",
}


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Path]:
    """Put the stand-in on the path, for as long as a test lasts."""
    site = fake.install(tmp_path / "site")
    sys.path.insert(0, str(site))
    try:
        yield tmp_path
    finally:
        sys.path.remove(str(site))
        for name in [name for name in sys.modules if name.partition(".")[0] == "tensorrt_llm"]:
            del sys.modules[name]


def configuration(**fields: Any) -> ExperimentConfig:
    values = {"model": "some/model", "backend": "tensorrt", "precision": "bf16"}
    return ExperimentConfig(**{**values, **fields})


def wheres(config: ExperimentConfig, *devices: Device) -> list[str]:
    return [problem.where for problem in found(config, lambda: devices or (A100,))]


# --- what is gone upstream


@pytest.mark.parametrize(
    ("section", "remedy"),
    [
        ({"engine_path": "/engines/x"}, "the checkpoint that model names is loaded directly"),
        ({"builder_opt_level": 3}, "no engine builder after 1.3.0rc20; remove it"),
        ({"kv_cache_type": "paged"}, "its KV cache is always paged; remove it"),
    ],
)
def test_settings_of_the_engine_builder_are_refused_with_the_reason_and_still_load_from_a_result(
    section: dict[str, Any], remedy: str
) -> None:
    data = {"model": "m", "backend": "tensorrt", "tensorrt": section}

    with pytest.raises(ValidationError, match=remedy) as refused:
        ExperimentConfig.model_validate(data)
    assert refused.value.errors()[0]["loc"] == ("tensorrt", *section)
    stored = ExperimentConfig.model_validate(data, context=STORED)
    assert stored.model_dump(exclude_defaults=True)["tensorrt"] == section


def test_a_result_of_a_precision_that_is_gone_still_loads() -> None:
    data = {"model": "m", "backend": "tensorrt", "precision": "int8"}

    with pytest.raises(ValidationError, match="tensorrt cannot run int8"):
        ExperimentConfig.model_validate(data)
    assert ExperimentConfig.model_validate(data, context=STORED).precision == "int8"


# --- arguments of the engine


def test_the_arguments_of_the_engine_are_those_of_llm() -> None:
    config = configuration(
        tensorrt=SECTION,
        passthrough_kwargs={"stream_interval": 2},
        lora={"adapter_path": "/a"},
    )
    arguments = engine_arguments(config, "some/model")

    bound = inspect.signature(fake.LLM.__init__).bind(None, **arguments)
    assert set(bound.arguments["kwargs"]) <= fake.TORCH_LLM_ARGS
    inspect.signature(fake.KvCacheConfig).bind(**arguments["kv_cache_config"])
    assert arguments["lora_config"]["lora_dir"] == ["/a"]


def test_what_is_null_stays_the_choice_of_the_library() -> None:
    assert sorted(engine_arguments(configuration(), "some/model")) == [
        *("dtype", "model", "revision", "tokenizer", "tokenizer_revision", "trust_remote_code"),
    ]


def test_entries_of_the_kv_cache_that_no_field_has_are_passed_through() -> None:
    config = configuration(
        tensorrt={"kv_cache_dtype": "fp8"},
        passthrough_kwargs={"kv_cache_config": {"tokens_per_block": 64}},
    )

    cache = engine_arguments(config, "some/model")["kv_cache_config"]
    assert cache == {"dtype": "fp8", "tokens_per_block": 64}


@pytest.mark.parametrize(("asked", "given"), [(True, {}), (False, None)])
def test_cuda_graphs_are_a_record_or_none(asked: bool, given: object) -> None:
    config = configuration(tensorrt={"cuda_graphs": asked})

    assert engine_arguments(config, "some/model")["cuda_graph_config"] == given


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp16", "float16"), ("bf16", "bfloat16"), ("fp8", "bfloat16")]
)
def test_a_precision_is_the_type_of_what_is_not_quantised(precision: str, dtype: str) -> None:
    assert engine_arguments(configuration(precision=precision), "some/model")["dtype"] == dtype


def test_random_weights_are_made_by_the_engine() -> None:
    config = configuration(model="random:tiny-llama")

    assert engine_arguments(config, "/random")["load_format"] == "dummy"


def test_every_argument_that_is_kept_from_passthrough_exists() -> None:
    decided = {name.partition(".")[0] for name in (*DECIDED_ELSEWHERE, *OURS)}
    assert decided <= fake.TORCH_LLM_ARGS


def test_the_library_tells_the_settings_in_force(installed: Path) -> None:
    files = str(installed)
    full = TensorRTLibrary(engine_arguments(configuration(tensorrt=SECTION), files), None)
    plain = TensorRTLibrary(engine_arguments(configuration(), files), None)
    asked, settings = full.settings(), plain.settings()
    for library in (full, plain, plain):
        library.shut_down()

    assert {name: asked[name] for name in SECTION} == SECTION
    assert settings["max_num_tokens"] == FACTS.pass_tokens
    assert (settings["moe_ep_size"], settings["cuda_graphs"]) == (None, True)
    assert (settings["kv_cache_dtype"], settings["compute_dtype"]) == ("auto", "bfloat16")


def test_prompts_reuse_the_cache_of_their_own_salt_alone(installed: Path) -> None:
    config = configuration(model="random:tiny-llama")
    library = TensorRTLibrary(engine_arguments(config, str(installed)), None)
    options = sampling_arguments(config, REQUEST, ENDS, 0)
    asked = [Asked(REQUEST, options, 0)] * 2
    seen: list[int] = []

    first = library.serve(asked, "pass 1", seen.append, lambda: None)
    second = library.serve(asked, "pass 2", seen.append, lambda: None)
    library.shut_down()

    assert [done.cached_tokens for done in (*first, *second)] == [0, 2, 0, 2]
    assert seen == [1, 1, 1, 1]
    done = first[0]
    assert (done.prompt_tokens, len(done.token_ids), done.reason) == (3, 8, "length")
    assert done.scheduled_ns <= done.first_token_ns <= done.last_token_ns <= done.delivered_ns


def test_the_library_tells_nobody_of_its_use_and_counts_gpus_by_bus(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = installed / "log"
    monkeypatch.setenv("FAKE_TENSORRT_LLM", json.dumps({"log": str(log)}))
    processes = EngineProcesses("TensorRT-LLM", ENVIRONMENT)
    with processes.starting():
        library = TensorRTLibrary(engine_arguments(configuration(), str(installed)), None)
    working = workers(processes)
    library.shut_down()
    processes.end()

    said = json.loads(log.read_text())[1]["environment"]
    assert said == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "TRTLLM_NO_USAGE_STATS": "1"}
    assert "TRTLLM_NO_USAGE_STATS" not in os.environ
    assert len(working) == 1


def test_only_one_file_imports_the_library() -> None:
    package = Path(tensorrt_library.__file__).parents[3]
    users = [
        path.name
        for path in package.rglob("*.py")
        if "import tensorrt_llm" in path.read_text() or "from tensorrt_llm" in path.read_text()
    ]
    assert users == ["library.py"]


# --- decoding


def test_greedy_takes_the_most_probable_token() -> None:
    arguments = sampling_arguments(configuration(), REQUEST, ENDS, 0)

    assert arguments["top_k"] == 1
    assert not {"temperature", "top_p", "seed", "min_tokens"} & set(arguments)


def test_null_sampling_parameters_are_neutral() -> None:
    config = configuration(decoder={"decoding_strategy": "sampling"}, random_seed=5)
    arguments = sampling_arguments(config, REQUEST, ENDS, 0)

    neutral = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}
    assert {name: arguments[name] for name in neutral} == neutral
    assert arguments["seed"] == 5 + 3


def test_every_end_of_sequence_ends_an_answer_unless_it_is_ignored() -> None:
    heeded = sampling_arguments(configuration(), REQUEST, ENDS, 0)
    ignored = sampling_arguments(configuration(decoder={"ignore_eos": True}), REQUEST, ENDS, 0)

    assert (heeded["end_id"], heeded["stop_token_ids"]) == (2, [3])
    assert heeded["include_stop_str_in_output"]
    assert ignored["ignore_eos"]
    assert "stop_token_ids" not in ignored


def test_a_request_of_full_length_ignores_every_end_of_sequence() -> None:
    full = replace(REQUEST, full_length=True)
    arguments = sampling_arguments(configuration(), full, ENDS, 0)

    assert arguments["ignore_eos"]
    assert "stop_token_ids" not in arguments


def test_no_request_must_have_more_tokens_than_it_may() -> None:
    config = configuration(decoder={"min_new_tokens": 6})

    assert sampling_arguments(config, Request(0, (5,), 4), ENDS, 0)["min_tokens"] == 4


@pytest.mark.parametrize(
    "decoder",
    [
        {},
        {"ignore_eos": True},
        {"min_new_tokens": 3, "repetition_penalty": 1.2},
        {"decoding_strategy": "sampling", "temperature": 0.7, "top_p": 0.9, "top_k": 5},
    ],
)
def test_the_arguments_of_a_request_are_those_of_sampling_params(decoder: dict[str, Any]) -> None:
    arguments = sampling_arguments(configuration(decoder=decoder), REQUEST, ENDS, 0)

    inspect.signature(fake.SamplingParams).bind(**arguments)


# --- times and counts


def done(**values: Any) -> Finished:
    given = {
        "prompt_tokens": 2,
        "token_ids": (7, 7, 7),
        "reason": "length",
        "issued_ns": 1_000_000,
        "delivered_ns": 9_000_000,
        "scheduled_ns": 2_000_000,
        "first_token_ns": 4_000_000,
        "last_token_ns": 8_000_000,
    }
    return Finished(**{**given, **values})


def trace_of(*ended: Finished) -> ServedTrace:
    asked = [(Request(5 + index, (1, 1), 3), 900_000) for index in range(len(ended))]
    return ServedTrace("TensorRT-LLM", 1, asked, ended, partial(checked, frozenset({2})))


def test_times_of_the_engine_are_those_of_a_sample() -> None:
    (sample,) = trace_of(done(cached_tokens=1)).samples()

    assert (sample.request, sample.issued_ns, sample.scheduled_ns) == (5, 1_000_000, 2_000_000)
    assert (sample.first_token_ns, sample.last_token_ns) == (4_000_000, 8_000_000)
    assert (sample.output_tokens, sample.gaps_ns) == (3, None)
    assert (sample.cached_input_tokens, sample.due_ns) == (1, 900_000)


def test_rounding_never_lets_times_run_backwards() -> None:
    (sample,) = trace_of(done(scheduled_ns=999_400, last_token_ns=9_000_300)).samples()

    assert (sample.scheduled_ns, sample.last_token_ns) == (1_000_000, 9_000_000)


@pytest.mark.parametrize(
    "values",
    [
        {"first_token_ns": None},
        {"scheduled_ns": 5_000_000},
        {"last_token_ns": 900_000_000},
        {"scheduled_ns": 1, "first_token_ns": 2, "last_token_ns": 3},
    ],
)
def test_times_that_cannot_be_of_our_clock_are_none(values: dict[str, Any]) -> None:
    (sample,) = trace_of(done(**{"issued_ns": 1_900_000, **values})).samples()

    assert (sample.first_token_ns, sample.last_token_ns) == (None, None)
    assert sample.scheduled_ns == sample.issued_ns


def test_an_end_of_sequence_counts_whether_it_is_given_or_held_back() -> None:
    ended = [
        done(reason="stop", token_ids=(7, 2)),
        done(reason="stop", token_ids=(7,)),
        done(token_ids=(7, 7)),
    ]

    assert [sample.output_tokens for sample in trace_of(*ended).samples()] == [2, 2, 2]


def test_a_request_that_was_cancelled_has_failed() -> None:
    (sample,) = trace_of(done(reason="cancelled")).samples()

    assert sample.error == "TensorRT-LLM ended it: cancelled"


# --- memory


def test_memory_is_what_the_engine_takes_over_what_was_there() -> None:
    readings = [MemoryUse(900.0, 4000.0), MemoryUse(1300.0, 4000.0), MemoryUse(1000.0, 4000.0)]
    memory = NvmlMemory(("GPU-1",), MemoryUse(100.0, 4000.0), lambda _: readings.pop(0))
    memory.look()
    memory.look()

    assert memory.reading() == MemoryReading("device", 1200.0, 800.0, 4000.0)


@pytest.mark.parametrize("after", [None, MemoryUse(100.0, 4000.0)])
def test_memory_that_cannot_be_told_is_unknown_and_not_zero(after: MemoryUse | None) -> None:
    memory = NvmlMemory(("GPU-1",), MemoryUse(100.0, 4000.0), lambda _: after)

    assert memory.reading() == MemoryReading("none")


# --- problems


def test_a_plain_configuration_has_no_problem() -> None:
    assert wheres(configuration()) == []


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"tensorrt": {"tp_size": 2}}, "tensorrt.tp_size"),
        ({"precision": "fp8"}, "precision"),
        ({"tensorrt": {"max_seq_len": 100}}, "tensorrt.max_seq_len"),
        (
            {"dataset": {"synthetic": {"input_len": 9000, "output_len": 6}}},
            "tensorrt.max_num_tokens",
        ),
        ({"lora": {"adapter_id": "some/adapter"}}, "lora.adapter_id"),
        ({"lora": {"adapter_path": "/nowhere"}}, "lora.adapter_path"),
        ({"passthrough_kwargs": {"dtype": "auto"}}, "passthrough_kwargs.dtype"),
        ({"passthrough_kwargs": {"max_num_tokens": 9}}, "passthrough_kwargs.max_num_tokens"),
        ({"passthrough_kwargs": {"backend": "x"}}, "passthrough_kwargs.backend"),
        ({"passthrough_kwargs": {"kv_cache_config": 3}}, "passthrough_kwargs.kv_cache_config"),
        (
            {
                "passthrough_kwargs": {"cuda_graph_config": {"max_batch_size": 8}},
                "tensorrt": {"cuda_graphs": True},
            },
            "passthrough_kwargs.cuda_graph_config",
        ),
        (
            {"passthrough_kwargs": {"kv_cache_config": {"dtype": "fp8"}}},
            "passthrough_kwargs.kv_cache_config.dtype",
        ),
    ],
)
def test_what_cannot_be_is_found_before_anything_loads(fields: dict[str, Any], where: str) -> None:
    assert wheres(configuration(**fields)) == [where]


@pytest.mark.parametrize("section", [{"max_num_tokens": 9000}, {"enable_chunked_prefill": True}])
def test_prompts_beyond_a_step_fit_once_the_remedy_is_followed(section: dict[str, Any]) -> None:
    shape = {"synthetic": {"input_len": 9000, "output_len": 6}}

    assert wheres(configuration(dataset=shape, tensorrt=section)) == []


def test_a_machine_without_a_gpu_is_told_what_it_lacks() -> None:
    def none() -> tuple[Device, ...]:
        raise LookupError("no NVML")

    (problem,) = found(configuration(), none)
    assert problem.what == "TensorRT-LLM needs an NVIDIA GPU: no NVML"


def checkpoint(folder: Path, algorithm: str) -> str:
    (folder / "config.json").write_text("{}")
    stated = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": algorithm}}
    (folder / "hf_quant_config.json").write_text(json.dumps(stated))
    return str(folder)


def test_a_checkpoint_says_how_it_is_quantised(tmp_path: Path) -> None:
    model = checkpoint(tmp_path, "FP8")

    assert wheres(configuration(model=model)) == ["precision"]
    assert wheres(configuration(model=model, precision="fp8"), H100) == []


def test_a_method_must_be_that_of_the_checkpoint(tmp_path: Path) -> None:
    model = checkpoint(tmp_path, "W4A16_AWQ")

    for method, problems in (("int4_awq", []), ("int4_gptq", ["tensorrt.quantization"])):
        section = {"quantization": method}
        assert wheres(configuration(model=model, precision="int4", tensorrt=section)) == problems


def test_fp8_in_blocks_is_fp8(tmp_path: Path) -> None:
    stated = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    (tmp_path / "config.json").write_text(json.dumps(stated))
    section = {"quantization": "fp8"}

    assert wheres(configuration(model=str(tmp_path), precision="fp8", tensorrt=section), H100) == []


@pytest.mark.parametrize("model", ["random:tiny-llama", "directory"])
def test_a_quantised_precision_needs_a_checkpoint_that_is_quantised(
    tmp_path: Path, model: str
) -> None:
    (tmp_path / "config.json").write_text("{}")
    name = model if model.startswith("random:") else str(tmp_path)

    assert wheres(configuration(model=name, precision="int4")) == ["precision"]


def test_nothing_is_said_of_a_checkpoint_that_is_not_here_yet() -> None:
    assert wheres(configuration(precision="int4")) == []


def test_a_checkpoint_of_another_tool_is_refused(tmp_path: Path) -> None:
    stated = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(stated))

    assert wheres(configuration(model=str(tmp_path), precision="int4")) == ["model"]


@pytest.mark.parametrize("algorithm", ["W4A16_MXFP4", "NVFP4", "MIXED_PRECISION"])
def test_an_algorithm_of_another_kind_of_number_is_no_int4(tmp_path: Path, algorithm: str) -> None:
    model = checkpoint(tmp_path, algorithm)

    assert wheres(configuration(model=model, precision="int4")) == ["precision"]


# --- errors


def told(error: Exception, config: ExperimentConfig | None = None) -> BackendError:
    with (
        pytest.raises(BackendError) as failure,
        WORDS.translated("load", config or configuration()),
    ):
        raise error
    return failure.value


def test_every_remedy_can_be_told() -> None:
    for mark, _ in WORDS.remedies:
        assert "\n    " in WORDS.error("load", configuration(), mark).message


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("CUDA out of memory"), "lower tensorrt.max_batch_size"),
        (ValueError("LLM got invalid argument: x"), "check passthrough_kwargs"),
        (ValueError("should not exceed max_num_tokens (8192)"), "raise tensorrt.max_num_tokens"),
        (ValueError("pipeline_parallel_size 3"), "check tensorrt.pp_size"),
        (ValueError("moe_ep_size * moe_tp_size != tp_size"), "check tensorrt.moe_ep_size and"),
    ],
)
def test_an_error_names_the_field_that_mends_it(error: Exception, said: str) -> None:
    translated = told(error)

    assert said in translated.message
    assert translated.where == "load"


def test_out_of_memory_names_the_values_that_were_asked_for() -> None:
    config = configuration(tensorrt={"max_batch_size": 64})

    message = told(RuntimeError("out of memory"), config).message

    assert "asked for: tensorrt.max_batch_size 64" in message
