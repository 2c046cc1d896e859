"""The PyTorch backend on CUDA: where times come from, memory, devices, quantised loading."""

from __future__ import annotations

import importlib.util
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure import run_experiment
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.protocol import Request
from llenergymeasure.core.backends.pytorch.loader import PyTorchBackend
from llenergymeasure.units import MIB
from tests.support.models import generated, load_engine, requests, run, save_adapter, save_model

pytestmark = pytest.mark.gpu
TEXTS = ["A river", "The second of two prompts is longer than the first", "Three"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture
def load(tmp_path):
    """Load engines that are closed after the test; CUDA is the default where there is a GPU."""
    loaded = []

    def make(model: Path | str, **fields: Any):
        loaded.append(load_engine(tmp_path, model=str(model), **fields))
        return loaded[-1]

    yield make
    for engine in loaded:
        engine.close()


def sample_of(engine, prompt_tokens: int, n: int):
    """Give the sample of one request, the second time it is run."""
    batch = (Request(0, tuple(5 + index % 900 for index in range(prompt_tokens)), n),)
    engine.run((batch,), -1, lambda _: None)
    return engine.run((batch,), 0, lambda _: None).samples()[0]


def ttft_ns(engine, prompt_tokens: int) -> int:
    samples = [sample_of(engine, prompt_tokens, 2) for _ in range(5)]
    return min(sample.first_token_ns - sample.scheduled_ns for sample in samples)


def test_the_time_to_first_token_contains_the_prefill(load, tmp_path):
    # wide enough that 2,000 tokens keep the device busy for longer than launching kernels takes
    wide = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 8}
    heads = {"num_attention_heads": 16, "num_key_value_heads": 8, "max_position_embeddings": 4096}
    shape = tmp_path / "wide"
    save_model(shape, max_position_embeddings=4096)
    _reshape(shape, {**wide, **heads, "head_dim": 128})
    engine = load(f"random:{shape}", precision="fp32")

    assert ttft_ns(engine, 2000) > 2 * ttft_ns(engine, 10)


def _reshape(folder: Path, changes: dict[str, int]) -> None:
    import json

    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_events_lie_on_the_host_clock_and_never_run_backwards(load, model):
    engine = load(model)
    sample_of(engine, 20, 32)  # kernels are chosen here
    begun_ns = time.monotonic_ns()
    trace = run(engine, [Request(0, (5, 6, 7), 32)])
    ended_ns = time.monotonic_ns()
    (sample,) = trace.samples()
    times = (
        begun_ns,
        sample.issued_ns,
        sample.scheduled_ns,
        sample.first_token_ns,
        sample.last_token_ns,
        sample.delivered_ns,
        ended_ns,
    )

    assert all(before <= after for before, after in pairwise(times))
    assert len(sample.gaps_ns) == sample.output_tokens - 1
    assert all(gap > 0 for gap in sample.gaps_ns)


def test_peak_device_memory_covers_weights_and_kv_cache(load, model):
    import torch

    engine = load(model)
    loaded = engine.inspect().memory
    weights = sum(p.numel() * p.element_size() for p in engine._model.parameters()) / MIB
    engine.run((tuple(Request(n, (7,) * 1000, 2) for n in range(64)),), 0, lambda _: None)
    worked = engine.inspect().memory
    # keys and values x layers x KV heads x head dimension x fp32, for every prompt position
    kv_cache = 2 * 2 * 2 * 16 * 4 * 64 * 1000 / MIB

    assert worked.kind == "device"
    assert weights <= loaded.model_mb
    assert worked.peak_mb >= worked.model_mb + kv_cache
    assert worked.capacity_mb == torch.cuda.get_device_properties(0).total_memory / MIB


def test_the_target_is_the_gpu_that_nvml_calls_so(model):
    import pynvml

    pynvml.nvmlInit()
    try:
        count = pynvml.nvmlDeviceGetCount()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        uuids = {pynvml.nvmlDeviceGetUUID(handle) for handle in handles}
    finally:
        pynvml.nvmlShutdown()
    target = PyTorchBackend().target(ExperimentConfig(model=str(model)))

    assert target.kind == "gpu"
    assert len(target.gpu_uuids) == 1
    assert set(target.gpu_uuids) <= uuids


def test_a_device_by_number_does_the_work_and_is_the_target(load, model):
    import torch

    last = torch.cuda.device_count() - 1
    section = {"device": f"cuda:{last}"}
    engine = load(model, pytorch=section)
    target = PyTorchBackend().target(ExperimentConfig(model=str(model), pytorch=section))

    assert engine.inspect().resolved["device"] == f"cuda:{last}"
    assert target.gpu_uuids == (f"GPU-{torch.cuda.get_device_properties(last).uuid}",)
    sample = sample_of(engine, 10, 8)
    assert sample.scheduled_ns < sample.first_token_ns < sample.last_token_ns


def test_a_device_number_that_is_not_there_is_a_problem(model):
    asked = ExperimentConfig(model=str(model), pytorch={"device": "cuda:99"})
    (only,) = PyTorchBackend().problems(asked)

    assert only.where == "pytorch.device"


def test_layers_spread_by_accelerate_run_and_every_gpu_is_counted(load, model):
    pytest.importorskip("accelerate", reason="the package accelerate is not installed")
    engine = load(model, pytorch={"device_map": "auto"})
    report = engine.inspect()

    assert report.resolved["device_map"] == "auto"
    assert report.compute_devices == len(report.resolved["device"].split(", "))
    assert sample_of(engine, 10, 4).output_tokens == 4


def test_the_gpu_answers_as_the_cpu_does(load, model):
    # TF32 is off by default for matrix products, so fp32 logits agree closely
    answers = []
    for device in ("cpu", "cuda"):
        engine = load(model, pytorch={"device": device, "batch_size": 3})
        answers.append(generated(run(engine, requests(engine, TEXTS, [8] * 3))))

    assert answers[0] == answers[1]


def test_sampled_passes_are_alike(load, model):
    engine = load(model, decoder={"decoding_strategy": "sampling"})
    made = requests(engine, TEXTS, [8] * 3)

    assert generated(run(engine, made)) == generated(run(engine, made, pass_index=1))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_random_weights_are_made_on_the_device(load, precision):
    engine = load("random:tiny-llama", precision=precision)

    assert {parameter.device.type for parameter in engine._model.parameters()} == {"cuda"}


def test_an_adapter_runs_beside_the_model(load, model, tmp_path):
    pytest.importorskip("peft", reason="the package peft is not installed")
    adapter = save_adapter(model, tmp_path / "adapter")
    engine = load(model, lora={"adapter_path": str(adapter)})

    assert sample_of(engine, 10, 4).output_tokens == 4


@pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None,
    reason="the package bitsandbytes is not installed",
)
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantised_weights_take_less_memory(load, tmp_path, precision):
    folder = save_model(tmp_path / "model", hidden_size=1024, intermediate_size=4096)
    full = load(folder, precision="bf16").inspect().memory.model_mb
    engine = load(folder, precision=precision)
    report = engine.inspect()

    assert report.resolved["load_in_8bit" if precision == "int8" else "load_in_4bit"] is True
    assert engine._model.get_memory_footprint() / MIB < 0.8 * full
    assert sample_of(engine, 10, 4).output_tokens == 4


def test_closing_frees_the_device(load, tmp_path):
    import torch

    before = torch.cuda.memory_allocated()
    engine = load(save_model(tmp_path / "model"))
    assert torch.cuda.memory_allocated() > before
    engine.close()

    assert torch.cuda.memory_allocated() <= before


def test_running_out_of_device_memory_names_the_batch_size(load, model):
    from llenergymeasure.exceptions import BackendError

    engine = load(model, pytorch={"batch_size": 1_000_000, "attn_implementation": "eager"})
    batch = tuple(Request(n, (7,) * 2000, 4) for n in range(4096))  # 4,096 x 4 x 2,000² scores
    with pytest.raises(BackendError, match=r"pytorch\.batch_size"):
        engine.run((batch,), 0, lambda _: None)


def test_a_whole_experiment_runs_on_the_gpu(model):
    result = run_experiment(
        model=str(model),
        n=4,
        precision="bf16",
        max_new_tokens=8,
        energy_backend="none",
        pytorch={"batch_size": 2},
    )

    assert result.ttft_ms > 0
    assert result.memory.kind == "device"
