"""The pure parts of the tensorrt backend: key and cache, times, problems, errors."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.protocol import Request
from llenergymeasure.core.backends.shared.nvml_devices import Device, MemoryUse
from llenergymeasure.core.backends.tensorrt.arguments import (
    EngineTokens,
    ModelFiles,
    build_arguments,
    sampling_arguments,
)
from llenergymeasure.core.backends.tensorrt.build import BuildError
from llenergymeasure.core.backends.tensorrt.cache import (
    RECORD,
    EngineCache,
    Toolchain,
    engine_design,
)
from llenergymeasure.core.backends.tensorrt.engine import DeviceMemory
from llenergymeasure.core.backends.tensorrt.errors import _REMEDIES, backend_error
from llenergymeasure.core.backends.tensorrt.facts import read_engine
from llenergymeasure.core.backends.tensorrt.loader import _section
from llenergymeasure.core.backends.tensorrt.model import model_files
from llenergymeasure.core.backends.tensorrt.problems import found
from llenergymeasure.core.backends.tensorrt.trace import (
    BatchRecord,
    Finished,
    TensorRTTrace,
    shortfall,
    times_within,
    tokens_produced,
)
from llenergymeasure.domain.samples import MemoryReading
from llenergymeasure.exceptions import ConfigError

A100 = Device("GPU-1", "NVIDIA A100", (8, 0))
H100 = Device("GPU-2", "NVIDIA H100", (9, 0))
FILES = ModelFiles("some/model", "some/model@c0ffee")
TOOLS = Toolchain("1.2.0", (A100.architecture,))
TOKENS = EngineTokens((2, 3), 0)


def configuration(**fields: Any) -> ExperimentConfig:
    values = {"model": "some/model", "backend": "tensorrt", "precision": "bf16"}
    return ExperimentConfig(**{**values, **fields})


def design(files: ModelFiles = FILES, tools: Toolchain = TOOLS, **fields: Any) -> dict[str, Any]:
    return engine_design(build_arguments(configuration(**fields), files), files, tools)


def wheres(config: ExperimentConfig, *devices: Device) -> list[str]:
    listed = found(config, _section(config), lambda: devices or (A100,))
    return [problem.where for problem in listed]


def write_engine(folder: Path, **build: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model = {"dtype": "float16", "mapping": {"tp_size": 2, "pp_size": 1}}
    config = {"version": "1.2.0", "pretrained_config": model, "build_config": build}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "rank0.engine").write_bytes(b"x" * 100)


# --- the key


@pytest.mark.parametrize(
    "fields",
    [
        {"precision": "fp16"},
        {"precision": "int8"},
        {"precision": "int8", "tensorrt": {"quantization": "int8_sq"}},
        {"tensorrt": {"tp_size": 2}},
        {"tensorrt": {"pp_size": 2}},
        {"tensorrt": {"max_batch_size": 8}},
        {"tensorrt": {"max_seq_len": 4096}},
        {"tensorrt": {"kv_cache_type": "continuous"}},
        {"max_input_tokens": 4000},
        {"passthrough_kwargs": {"fast_build": True}},
        {"passthrough_kwargs": {"max_num_tokens": 9000}},
    ],
)
def test_whatever_shapes_an_engine_is_in_its_key(fields: dict[str, Any]) -> None:
    assert design(**fields) != design()


def test_model_version_and_gpu_are_in_the_key() -> None:
    others = [
        design(FILES._replace(identity="some/model@decade")),
        design(FILES._replace(is_random=True)),
        design(FILES._replace(adapter="/a", adapter_rank=8, adapter_identity="x")),
        design(tools=TOOLS._replace(version="1.1.0")),
        design(tools=TOOLS._replace(gpu=(H100.architecture,))),
    ]

    assert all(other != design() for other in others)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 7},
        {"random_seed": 1},
        {"max_new_tokens": 9},
        {"max_input_tokens": 700},
        {"decoder": {"decoding_strategy": "sampling", "temperature": 0.5}},
    ],
)
def test_what_shapes_no_engine_is_not_in_its_key(fields: dict[str, Any]) -> None:
    assert design(**fields) == design()


def test_where_files_lie_is_not_in_the_key() -> None:
    here = FILES._replace(adapter="/a", adapter_rank=8, adapter_identity="x")

    assert design(here) == design(here._replace(model="/elsewhere", adapter="/b"))


def test_a_directory_is_known_by_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    config = configuration(model=str(tmp_path))
    before = model_files(config, tmp_path).identity

    (tmp_path / "model.safetensors").write_bytes(b"weights")

    assert model_files(config, tmp_path).identity != before


# --- the cache


def test_a_design_is_built_once(tmp_path: Path) -> None:
    cache, built = EngineCache(tmp_path), []

    def build(directory: Path) -> None:
        built.append(directory)
        write_engine(directory)

    first, second = cache.obtain(design(), build), cache.obtain(design(), build)

    assert len(built) == 1
    assert (first.built_now, second.built_now) == (True, False)
    assert first.directory == second.directory
    assert first.build_s == second.build_s


@pytest.mark.parametrize(
    "damage",
    [
        lambda engine: (engine / "rank0.engine").write_bytes(b"short"),
        lambda engine: (engine / "rank0.engine").unlink(),
        lambda engine: (engine / RECORD).unlink(),
        lambda engine: (engine / RECORD).write_text("{"),
        lambda engine: (engine / "config.json").unlink(),
    ],
)
def test_a_damaged_engine_is_built_anew(tmp_path: Path, damage: Any) -> None:
    cache = EngineCache(tmp_path)
    damage(cache.obtain(design(), write_engine).directory)

    again = cache.obtain(design(), write_engine)

    assert again.built_now
    assert not cache.obtain(design(), write_engine).built_now


def test_a_build_that_fails_leaves_nothing_and_the_next_one_builds(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)

    def broken(directory: Path) -> None:
        write_engine(directory)
        raise BuildError("half-way")

    with pytest.raises(BuildError):
        cache.obtain(design(), broken)

    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []
    assert cache.obtain(design(), write_engine).built_now


def test_what_a_killed_build_left_is_swept(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    place = cache.obtain(design(), write_engine).directory
    (place / RECORD).unlink()
    (tmp_path / f".{place.name}.left" / "engine").mkdir(parents=True)

    cache.obtain(design(), write_engine)

    assert not list(tmp_path.glob(".*"))


def test_two_that_want_one_engine_build_it_once(tmp_path: Path) -> None:
    building, go_on = threading.Event(), threading.Event()
    built, got = [], []

    def build(directory: Path) -> None:
        built.append(directory)
        building.set()
        go_on.wait()
        write_engine(directory)

    def obtain() -> None:
        got.append(EngineCache(tmp_path).obtain(design(), build))

    threads = [threading.Thread(target=obtain) for _ in range(2)]
    threads[0].start()
    building.wait()
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join()

    assert len(built) == 1
    assert sorted(one.built_now for one in got) == [False, True]


def test_files_of_no_engine_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_engine(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="describes no TensorRT-LLM engine"):
        read_engine(tmp_path)


# --- decoding


def test_greedy_takes_the_most_probable_token() -> None:
    arguments = sampling_arguments(configuration(), TOKENS, 8, 0)

    assert arguments["top_k"] == 1
    assert not {"temperature", "top_p", "seed", "min_tokens"} & set(arguments)


def test_null_sampling_parameters_are_neutral() -> None:
    config = configuration(decoder={"decoding_strategy": "sampling"}, random_seed=5)
    arguments = sampling_arguments(config, TOKENS, 8, 3)

    neutral = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}
    assert {name: arguments[name] for name in neutral} == neutral
    assert arguments["seed"] == 5 + 3


def test_every_end_of_sequence_ends_an_answer_unless_it_is_ignored() -> None:
    heeded = sampling_arguments(configuration(), TOKENS, 8, 0)
    ignored = sampling_arguments(configuration(decoder={"ignore_eos": True}), TOKENS, 8, 0)

    assert (heeded["end_id"], heeded["stop_token_ids"]) == (2, [3])
    assert heeded["include_stop_str_in_output"]
    assert ignored["ignore_eos"]
    assert "stop_token_ids" not in ignored


def test_no_request_must_have_more_tokens_than_it_may() -> None:
    config = configuration(decoder={"min_new_tokens": 6})

    assert sampling_arguments(config, TOKENS, 4, 0)["min_tokens"] == 4


@pytest.mark.parametrize(
    ("precision", "dtype", "algorithm"),
    [
        ("fp16", "float16", None),
        ("bf16", "bfloat16", None),
        ("int8", "bfloat16", "W8A16"),
        ("fp8", "bfloat16", "FP8"),
        ("int4", "bfloat16", "W4A16"),
    ],
)
def test_a_precision_is_a_type_and_an_algorithm(
    precision: str, dtype: str, algorithm: str | None
) -> None:
    arguments = build_arguments(configuration(precision=precision), FILES)

    assert arguments["dtype"] == dtype
    assert arguments.get("quant_config", {}).get("quant_algo") == algorithm


def test_a_quantised_checkpoint_is_taken_as_it_is() -> None:
    files = FILES._replace(quantised_as="FP8")

    assert "quant_config" not in build_arguments(configuration(precision="fp8"), files)


def test_random_weights_are_made_by_the_engine() -> None:
    files = FILES._replace(is_random=True)

    assert build_arguments(configuration(), files)["load_format"] == "dummy"
    assert "load_format" not in build_arguments(configuration(), FILES)


# --- times and counts


def done(**values: Any) -> Finished:
    given = {
        "prompt_tokens": 2,
        "token_ids": (7, 7, 7),
        "reason": "length",
        "delivered_ns": 9_000_000,
        "scheduled_ns": 2_000_000,
        "first_token_ns": 4_000_000,
        "last_token_ns": 8_000_000,
    }
    return Finished(**{**given, **values})


def test_times_of_the_engine_are_those_of_a_sample() -> None:
    trace = TensorRTTrace(1, 1_000_000, frozenset({2}))
    trace.records.append(BatchRecord((Request(5, (1, 1), 3),), 1_500_000, [done()]))

    (sample,) = trace.samples()

    assert (sample.request, sample.issued_ns, sample.scheduled_ns) == (5, 1_000_000, 2_000_000)
    assert (sample.first_token_ns, sample.last_token_ns) == (4_000_000, 8_000_000)
    assert (sample.output_tokens, sample.gaps_ns) == (3, None)


def test_rounding_never_lets_times_run_backwards() -> None:
    times = times_within(done(scheduled_ns=999_400, last_token_ns=9_000_300), 1_000_000)

    assert times is not None
    assert (times.scheduled_ns, times.last_token_ns) == (1_000_000, 9_000_000)


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
    assert times_within(done(**values), 1_900_000) is None


def test_an_end_of_sequence_counts_whether_it_is_given_or_held_back() -> None:
    ends = frozenset({2})

    assert tokens_produced(done(reason="stop", token_ids=(7, 2)), ends) == 2
    assert tokens_produced(done(reason="stop", token_ids=(7,)), ends) == 2
    assert tokens_produced(done(token_ids=(7, 7)), ends) == 2


def test_reused_blocks_and_requests_without_times_are_counted() -> None:
    requests = (Request(0, (1, 1), 3), Request(1, (1, 1, 1), 4), Request(2, (1, 1), 5))
    ended = [done(reused_blocks=1), done(reused_blocks=0), done(scheduled_ns=None)]
    trace = TensorRTTrace(0, 1_000_000, frozenset({2}))
    trace.records.append(BatchRecord(requests, 1_000_000, ended))

    assert shortfall(trace) == (1, 1)


def test_a_request_that_was_cancelled_has_failed() -> None:
    trace = TensorRTTrace(0, 1_000_000, frozenset())
    trace.records.append(BatchRecord((Request(0, (1, 1), 3),), 1, [done(reason="cancelled")]))

    assert trace.samples()[0].error == "TensorRT-LLM ended it: cancelled"


# --- memory


def test_memory_is_what_the_engine_takes_over_what_was_there() -> None:
    readings = [MemoryUse(900.0, 4000.0), MemoryUse(1300.0, 4000.0), MemoryUse(1000.0, 4000.0)]
    memory = DeviceMemory(("GPU-1",), MemoryUse(100.0, 4000.0), lambda _: readings.pop(0))
    memory.look()
    memory.look()

    assert memory.reading() == MemoryReading("device", 1200.0, 800.0, 4000.0)


@pytest.mark.parametrize("after", [None, MemoryUse(100.0, 4000.0)])
def test_memory_that_cannot_be_told_is_unknown_and_not_zero(after: MemoryUse | None) -> None:
    memory = DeviceMemory(("GPU-1",), MemoryUse(100.0, 4000.0), lambda _: after)

    assert memory.reading() == MemoryReading("none")


# --- problems


def test_a_plain_configuration_has_no_problem() -> None:
    assert wheres(configuration()) == []


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"tensorrt": {"tp_size": 2}}, "tensorrt.tp_size"),
        ({"tensorrt": {"builder_opt_level": 3}}, "tensorrt.builder_opt_level"),
        ({"precision": "fp8"}, "precision"),
        ({"precision": "int4", "tensorrt": {"quantization": "int4_gptq"}}, "tensorrt.quantization"),
        ({"tensorrt": {"max_seq_len": 100}}, "tensorrt.max_seq_len"),
        ({"lora": {"adapter_id": "some/adapter"}}, "lora.adapter_id"),
        ({"lora": {"adapter_path": "/nowhere"}}, "lora.adapter_path"),
        ({"passthrough_kwargs": {"dtype": "auto"}}, "passthrough_kwargs.dtype"),
        ({"passthrough_kwargs": {"workspace": "x"}}, "passthrough_kwargs.workspace"),
        (
            {"passthrough_kwargs": {"kv_cache_config": {"enable_block_reuse": True}}},
            "passthrough_kwargs.kv_cache_config",
        ),
        ({"tensorrt": {"engine_path": "/nowhere"}}, "tensorrt.engine_path"),
    ],
)
def test_what_cannot_be_is_found_before_anything_loads(fields: dict[str, Any], where: str) -> None:
    assert wheres(configuration(**fields)) == [where]


def test_fp8_runs_where_the_gpu_has_it() -> None:
    assert wheres(configuration(precision="fp8"), H100) == []


def test_a_given_engine_must_be_what_is_asked_for(tmp_path: Path) -> None:
    write_engine(tmp_path, max_batch_size=8, max_seq_len=64, max_input_len=32)
    section = {"engine_path": str(tmp_path), "max_batch_size": 4}
    config = configuration(tensorrt=section, max_new_tokens=100)

    assert sorted(wheres(config)) == [
        "max_input_tokens",
        "precision",
        "tensorrt.engine_path",  # two GPUs
        "tensorrt.engine_path",  # its length
        "tensorrt.max_batch_size",
    ]


def test_a_checkpoint_says_how_it_is_quantised(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    stated = {"quantization": {"quant_algo": "FP8"}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(stated))

    assert wheres(configuration(model=str(tmp_path))) == ["precision"]
    assert wheres(configuration(model=str(tmp_path), precision="fp8"), H100) == []


def test_a_checkpoint_that_no_engine_is_built_of_is_refused(tmp_path: Path) -> None:
    stated = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(stated))

    assert wheres(configuration(model=str(tmp_path), precision="int4")) == ["model"]


@pytest.mark.parametrize("algorithm", ["W4A16_MXFP4", "NVFP4", "MIXED_PRECISION", "W4A8_MXFP4_FP8"])
def test_an_algorithm_of_another_kind_of_number_is_no_int4(tmp_path: Path, algorithm: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    stated = {"quantization": {"quant_algo": algorithm}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(stated))

    assert wheres(configuration(model=str(tmp_path), precision="int4")) == ["precision"]


# --- errors


def test_every_remedy_can_be_told() -> None:
    for mark, _ in _REMEDIES:
        assert "\n    " in backend_error("load", configuration(), ValueError(mark)).message


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("CUDA out of memory"), "lower tensorrt.max_batch_size"),
        (BuildError("the builder was killed by SIGKILL"), "lower tensorrt.max_batch_size"),
        (ValueError("_TrtLLM got invalid argument: x"), "check passthrough_kwargs"),
        (ValueError("prompt length should not exceed max_seq_len"), "raise tensorrt.max_seq_len"),
        (BuildError("OSError: cnn_dailymail is not a local folder"), "calib_dataset: DIRECTORY"),
        (
            RuntimeError("could not deserialize"),
            "delete the engine, to have it built anew: /engines/x",
        ),
        (ValueError("should not exceed max_num_tokens (8192)"), "{max_num_tokens: N}"),
        (ValueError("pipeline_parallel_size 3"), "check tensorrt.pp_size"),
    ],
)
def test_an_error_names_the_field_that_mends_it(error: Exception, said: str) -> None:
    translated = backend_error("load", configuration(), error, "/engines/x")

    assert said in translated.message
    assert translated.where == "load"


def test_out_of_memory_names_the_values_that_were_asked_for() -> None:
    config = configuration(tensorrt={"max_batch_size": 64})

    message = backend_error("load", config, RuntimeError("out of memory")).message

    assert "asked for: tensorrt.max_batch_size 64" in message
