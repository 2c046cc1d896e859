"""Load for calibration: matrix products on one CUDA device, through PyTorch."""

from __future__ import annotations

import importlib.util
import time
from typing import Any

from llenergymeasure.domain.samples import Window
from llenergymeasure.exceptions import BackendError

SIDE = 4096
QUEUED = 4  # products between two looks at the clock, so that the device never waits for us
WARMUP_S = 1.0
WHERE = "--calibrate"


class TorchLoad:
    """Multiplies square matrices on a device for as long as it is told.

    Args:
        uuid: The device.

    Raises:
        BackendError: PyTorch is not installed, or does not see the device.
    """

    def __init__(self, uuid: str) -> None:
        if importlib.util.find_spec("torch") is None:
            raise BackendError(
                "calibration drives the GPU through PyTorch, which is not installed: "
                "pip install 'llenergymeasure[pytorch]'",
                where=WHERE,
            )
        import torch

        self._torch: Any = torch
        self._device = torch.device("cuda", _index(torch, uuid))
        self._factor = torch.randn(SIDE, SIDE, device=self._device, dtype=torch.float16)
        self._product = torch.empty_like(self._factor)
        self.burst(WARMUP_S)

    def burst(self, seconds: float) -> Window:
        """Multiply for about so long; the last products that were queued are waited for."""
        torch = self._torch
        torch.cuda.synchronize(self._device)
        t0_ns = time.monotonic_ns()
        while time.monotonic_ns() - t0_ns < seconds * 1e9:
            for _ in range(QUEUED):
                torch.matmul(self._factor, self._factor, out=self._product)
            torch.cuda.synchronize(self._device)
        return Window(t0_ns, time.monotonic_ns())

    def close(self) -> None:
        """Free the matrices."""
        del self._factor, self._product
        self._torch.cuda.empty_cache()


def _index(torch: Any, uuid: str) -> int:
    """Find a device among those that PyTorch sees."""
    count = torch.cuda.device_count()
    for index in range(count):
        if f"GPU-{torch.cuda.get_device_properties(index).uuid}" == uuid:
            return index
    raise BackendError(
        f"PyTorch sees {count} CUDA devices, and {uuid} is none of them; check "
        "CUDA_VISIBLE_DEVICES and that this PyTorch is built for CUDA",
        where=WHERE,
    )
