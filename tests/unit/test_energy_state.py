"""Whose state is read beside a source, or beside none."""

from __future__ import annotations

import pytest

from llenergymeasure.core.energy.gpus import state_spec, told_by_nvml
from llenergymeasure.core.energy.none import NoSource
from llenergymeasure.core.energy.protocol import SamplingRates
from llenergymeasure.core.gpu_survey import GPUSurvey
from llenergymeasure.domain.environment import DeviceTarget, GPUInfo
from llenergymeasure.domain.samples import Window

SURVEY = GPUSurvey(
    gpus=(
        GPUInfo(index=0, uuid="GPU-a", name="A100"),
        GPUInfo(index=1, uuid="GPU-b", name="A100"),
        GPUInfo(index=2, uuid="GPU-c", name="A100", mig_mode=True),
    )
)


@pytest.mark.parametrize(
    ("uuids", "visible", "told"),
    [
        (("GPU-b",), "GPU-a", ("GPU-b",)),
        ((), "GPU-a", ("GPU-a",)),
        ((), "1", ()),  # in CUDA's order, which is not NVML's
        (("GPU-a", "GPU-of-AMD"), "", ()),
        (("GPU-c",), "", ()),  # cut into slices
        (("GPU-MIG-1",), "", ()),
    ],
)
def test_the_state_is_that_of_whole_gpus_that_are_known_to_work(
    uuids: tuple[str, ...], visible: str, told: tuple[str, ...]
) -> None:
    found = told_by_nvml(DeviceTarget("gpu", uuids), SURVEY, {"CUDA_VISIBLE_DEVICES": visible})
    assert found == told


def test_work_on_a_cpu_has_no_state_to_read_and_none_starts_nothing() -> None:
    target = DeviceTarget("cpu")
    assert state_spec(target, SamplingRates()) is None
    source = NoSource(target, SamplingRates())
    source.start()
    source.open_window()
    assert source.close_window(Window(0, 1)).total_j is None
    source.stop()
