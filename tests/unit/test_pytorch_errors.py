"""Which errors of PyTorch and its friends are put into this package's words."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from llenergymeasure.config.models import ExperimentConfig  # noqa: E402
from llenergymeasure.core.backends.pytorch.engine import translated  # noqa: E402
from llenergymeasure.core.backends.shared.engines import static_batches  # noqa: E402
from llenergymeasure.exceptions import BackendError, ConfigError  # noqa: E402


def config(batch_size: int) -> ExperimentConfig:
    return ExperimentConfig(model="m", max_new_tokens=9, pytorch={"batch_size": batch_size})


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("boom"),
        ValueError("boom"),
        OSError("boom"),
        ImportError("boom"),
        KeyError("boom"),
        IndexError("boom"),
        AttributeError("boom"),
        TypeError("boom"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_foreign_error_says_what_and_when(error):
    said = r"PyTorch failed to load: \w+: .*boom"
    with pytest.raises(BackendError, match=said) as caught, translated("load", config(1)):
        raise error
    assert caught.value.where == "load"
    assert caught.value.__cause__ is error


def test_a_slip_in_our_own_code_is_not_blamed_on_pytorch():
    with pytest.raises(TypeError), translated("generate", config(1)):
        static_batches(None, 1)  # type: ignore[arg-type]


def test_damaged_weights_are_foreign():
    from safetensors import SafetensorError

    with pytest.raises(BackendError, match="SafetensorError"), translated("load", config(1)):
        raise SafetensorError("header too small")


def test_an_error_of_this_package_passes():
    with pytest.raises(ConfigError, match="as it was"), translated("load", config(1)):
        raise ConfigError("as it was")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("std::bad_alloc"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_running_out_of_memory_is_recognised_in_all_its_words(error):
    with pytest.raises(BackendError) as caught, translated("generate", config(16)):
        raise error
    assert "out of memory during generate" in str(caught.value)
    assert "pytorch.batch_size 16" in str(caught.value)
    assert "lower pytorch.batch_size" in str(caught.value)


def test_a_batch_of_one_that_runs_out_of_memory_is_not_told_to_shrink_it():
    with pytest.raises(BackendError) as caught, translated("generate", config(1)):
        raise MemoryError
    assert "lower max_input_tokens or max_new_tokens" in str(caught.value)
    assert "lower pytorch.batch_size" not in str(caught.value)
