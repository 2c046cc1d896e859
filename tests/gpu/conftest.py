"""Everything in this folder needs an NVIDIA GPU that PyTorch can use; elsewhere it is skipped."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def absent() -> str | None:
    """Say what is missing, or ``None`` on a machine with a usable GPU."""
    if shutil.which("nvidia-smi") is None:
        return "nvidia-smi is not on this machine"
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed"
    import torch

    return None if torch.cuda.is_available() else "PyTorch sees no CUDA device"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if HERE in item.path.parents]
    reason = absent() if ours else None
    for item in ours:
        item.add_marker(pytest.mark.gpu)
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
