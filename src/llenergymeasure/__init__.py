"""Measure what an LLM deployment choice costs in energy, speed and memory.

The names in ``__all__`` are stable under semantic versioning; everything else may change.
They are imported on first use, so that importing the package stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from llenergymeasure._version import __version__

if TYPE_CHECKING:
    from llenergymeasure._api import run_experiment, run_study
    from llenergymeasure.config.models import ExperimentConfig, StudyConfig
    from llenergymeasure.domain.results import ExperimentResult, StudyResult

__all__ = [
    "ExperimentConfig",
    "ExperimentResult",
    "StudyConfig",
    "StudyResult",
    "__version__",
    "run_experiment",
    "run_study",
]

_HOMES = {
    "ExperimentConfig": "llenergymeasure.config.models",
    "ExperimentResult": "llenergymeasure.domain.results",
    "StudyConfig": "llenergymeasure.config.models",
    "StudyResult": "llenergymeasure.domain.results",
    "run_experiment": "llenergymeasure._api",
    "run_study": "llenergymeasure._api",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'llenergymeasure' has no attribute '{name}'")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    if name in ("ExperimentConfig", "StudyConfig"):
        found.model_rebuild()  # built on first use otherwise, and without a signature until then
    return found


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
