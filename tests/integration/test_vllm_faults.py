"""What breaks while vLLM loads, or is broken: the message, and that no process is left.

What breaks later is in ``test_vllm_engine.py``, by engines that no other test needs any more.
"""

from __future__ import annotations

import contextlib
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("vllm", reason="runs in the environment that `make test-vllm` makes")

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.shared.processes import MARK
from llenergymeasure.core.backends.vllm.engine import VLLMBackend
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.exceptions import BackendError, ExperimentError
from tests.support.models import edit_weights, save_model
from tests.support.vllm_engines import HEADS, QUICK, vllm_config

TINY = "random:tiny-llama"


def marked() -> Iterator[psutil.Process]:
    """Find processes of engines that this process started, children of dead ones included."""
    own = str(Path.cwd())
    for process in psutil.process_iter():
        try:
            if MARK in process.environ() and process.cwd() == own:
                yield process
        except (psutil.Error, OSError):
            continue


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path, monkeypatch):
    """Run each test in a folder of its own, by which the processes it leaves are known."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(marked())


def failure(tmp_path: Path, **fields) -> str:
    with pytest.raises(BackendError) as caught:
        VLLMBackend().load(vllm_config(model=TINY, **fields), tmp_path)
    assert caught.value.where == "load"
    return caught.value.message


def test_a_context_that_the_model_has_not_names_our_field(tmp_path):
    said = failure(tmp_path, vllm={**QUICK, "max_model_len": 99_999})

    assert "vLLM failed to load: " in said
    assert "99999" in said
    assert "check vllm.max_model_len" in said


def test_heads_that_the_workers_cannot_share_name_our_field(tmp_path):
    said = failure(tmp_path, vllm={**QUICK, "tensor_parallel_size": 3})

    assert "divisible by tensor parallel size" in said
    assert "set vllm.tensor_parallel_size to a divisor" in said


class OnGPU(VLLMBackend):
    """Takes energy from a GPU, wherever vLLM works."""

    def target(self, config: ExperimentConfig) -> DeviceTarget:
        return DeviceTarget("gpu", ("GPU-1",))


def test_an_engine_that_works_elsewhere_than_where_energy_is_read_does_not_load(tmp_path):
    with pytest.raises(ExperimentError, match="and energy is read on GPU-1"):
        OnGPU().load(vllm_config(model=TINY), tmp_path)


def test_a_value_that_vllm_does_not_know_names_our_field(tmp_path):
    said = failure(tmp_path, vllm={**QUICK, "kv_cache_dtype": "fp77"})

    assert "fp77" in said
    assert "check vllm.kv_cache_dtype" in said


def test_an_argument_that_vllm_does_not_take_names_the_escape_hatch(tmp_path):
    said = failure(tmp_path, passthrough_kwargs={"no_such_argument": 1})

    assert "no_such_argument" in said
    assert "check passthrough_kwargs" in said


def test_a_kv_cache_that_does_not_fit_names_the_fields_to_change(tmp_path, monkeypatch):
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    said = failure(tmp_path, passthrough_kwargs={"kv_cache_memory_bytes": 1 << 20})

    assert "lower vllm.max_model_len" in said
    assert "max_model_len 512" in said


def core() -> psutil.Process:
    return next(process for process in marked() if process.name() == "VLLM::EngineCore")


@contextlib.contextmanager
def later(do: Callable[[], object]) -> Iterator[None]:
    """Do something as soon as it can be done, beside the block."""

    def keep_trying() -> None:
        for _ in range(2000):
            with contextlib.suppress(StopIteration, psutil.NoSuchProcess):
                do()
                return
            time.sleep(0.05)

    thread = threading.Thread(target=keep_trying, daemon=True)
    thread.start()
    yield
    thread.join()


STOPPED = "vLLM no longer answers: its process [0-9]+ has been stopped for 10 s"


@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGSTOP, STOPPED), (signal.SIGKILL, "vLLM failed to load|died")]
)
def test_an_engine_core_that_is_stopped_or_killed_while_loading_ends_the_load(
    tmp_path, number, said
):
    sent_s: list[float] = []

    def send() -> None:
        core().send_signal(number)
        sent_s.append(time.monotonic())

    with later(send):
        message = failure(tmp_path)

    assert re.search(said, message)
    assert time.monotonic() - sent_s[0] < 90


def unfit(tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
    folder = edit_weights(save_model(tmp_path / "model", **HEADS), change)
    with pytest.raises(BackendError) as caught:
        VLLMBackend().load(vllm_config(model=str(folder)), tmp_path)
    assert caught.value.where == "load"
    return caught.value.message


def test_a_tensor_that_vllm_would_leave_as_the_memory_was_is_refused_by_name(tmp_path):
    gone = "model.layers.1.self_attn.k_proj.weight"

    said = unfit(tmp_path, lambda tensors: {k: v for k, v in tensors.items() if k != gone})

    assert f"do not fit its config.json: 1 tensor is missing, such as {gone}" in said


def test_a_tensor_without_a_place_is_refused_with_what_helps(tmp_path):
    def renamed(tensors: dict[str, Any]) -> dict[str, Any]:
        return {name.replace("layers.1", "blocks.1"): one for name, one in tensors.items()}

    said = unfit(tmp_path, renamed)

    assert "no module or parameter named" in said
    assert "name a checkpoint that was saved with it" in said
