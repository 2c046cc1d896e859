"""Energy sources, and the one function that chooses among them.

Names are resolved on first use: the sampling process imports this package too, and must stay
small.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llenergymeasure.core.energy.selection import (
        Selection,
        energy_problems,
        get_active_energy_backend,
    )

__all__ = ["Selection", "energy_problems", "get_active_energy_backend"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("llenergymeasure.core.energy.selection"), name)
