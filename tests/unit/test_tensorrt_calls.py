"""Our calls of TensorRT-LLM bind to its signatures, as the stand-in has them from its source."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.tensorrt import library as tensorrt_library
from llenergymeasure.core.backends.tensorrt.arguments import (
    DECIDED_ELSEWHERE,
    OURS,
    QUANT_ALGOS,
    EngineTokens,
    ModelFiles,
    build_arguments,
    sampling_arguments,
    serving_arguments,
)
from llenergymeasure.core.backends.tensorrt.facts import read_engine
from tests.support import fake_tensorrt_llm as fake

FULL: dict[str, Any] = {
    "max_batch_size": 4,
    "tp_size": 2,
    "pp_size": 2,
    "max_seq_len": 512,
    "kv_cache_type": "continuous",
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


def adapter(folder: Path) -> ModelFiles:
    (folder / "adapter").mkdir()
    return ModelFiles("some/model", "some/model@main", False, None, str(folder / "adapter"), 8, "a")


def binds(function: Any, arguments: dict[str, Any]) -> None:
    bound = inspect.signature(function).bind(None, **arguments)
    extra = bound.arguments.get("kwargs", {})
    assert set(extra) <= fake.TRT_LLM_ARGS


@pytest.mark.parametrize("quantised", [False, True])
def test_the_arguments_of_a_build_are_those_of_llm(tmp_path: Path, *, quantised: bool) -> None:
    precision = "int4" if quantised else "fp16"
    config = configuration(tensorrt=FULL, precision=precision)
    arguments = build_arguments(config, adapter(tmp_path))

    binds(fake.LLM.__init__, arguments)
    inspect.signature(fake.BuildConfig).bind(**arguments["build_config"])
    inspect.signature(fake.KvCacheConfig).bind(**arguments["kv_cache_config"])
    assert set(arguments["build_config"]["lora_config"]) <= set(vars(fake.LoraConfig()))
    assert arguments["build_config"]["kv_cache_type"] in fake.KVCacheType.__members__


def test_the_arguments_of_serving_are_those_of_llm(tmp_path: Path) -> None:
    config = configuration()
    model = fake.LLM(
        "m", build_config=fake.BuildConfig(max_batch_size=4), tensor_parallel_size=2, dtype="x"
    )
    model.save(str(tmp_path / "engine"))
    model.shutdown()

    arguments = serving_arguments(config, adapter(tmp_path), read_engine(tmp_path / "engine"))

    binds(fake.LLM.__init__, arguments)
    assert arguments["max_batch_size"] == 4
    assert arguments["tensor_parallel_size"] == 2


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
    config = configuration(decoder=decoder)

    arguments = sampling_arguments(config, EngineTokens((2, 3), 0), 8, 0)

    inspect.signature(fake.SamplingParams).bind(**arguments)


def test_every_method_is_an_algorithm_of_the_library() -> None:
    assert set(QUANT_ALGOS.values()) <= set(fake.QuantAlgo.__members__)


def test_every_argument_that_is_kept_from_passthrough_exists() -> None:
    known = {*fake.TRT_LLM_ARGS, "return_perf_metrics"}  # the latter only since 1.1

    assert {*DECIDED_ELSEWHERE, *OURS} <= known


def test_an_engine_is_built_and_served_through_the_thin_file(installed: Path) -> None:
    config = configuration(model="random:tiny-llama", tensorrt={"max_batch_size": 2})
    files = ModelFiles(str(installed), "random:x", is_random=True)
    tensorrt_library.build(build_arguments(config, files), installed / "engine")
    facts = read_engine(installed / "engine")
    seen: list[int] = []

    library = tensorrt_library.TensorRTLibrary(serving_arguments(config, files, facts), None)
    options = sampling_arguments(config, EngineTokens((2,), 0), 3, 0)
    (done,) = library.generate([[5, 6, 7]], [options], seen.append, lambda: None)
    library.shut_down()
    library.shut_down()

    assert (done.prompt_tokens, len(done.token_ids), done.reason, seen) == (3, 3, "length", [1])
    assert done.scheduled_ns <= done.first_token_ns <= done.last_token_ns <= done.delivered_ns
    assert (facts.max_batch_size, facts.dtype, facts.version) == (2, "bfloat16", fake.VERSION)


def test_only_one_file_imports_the_library() -> None:
    package = Path(tensorrt_library.__file__).parents[3]
    users = [
        path.name
        for path in package.rglob("*.py")
        if "import tensorrt_llm" in path.read_text() or "from tensorrt_llm" in path.read_text()
    ]
    assert users == ["library.py"]
