"""Which YAML files describe a study."""

from __future__ import annotations

from pathlib import Path

from llenergymeasure.config.inheritance import describes_study, read
from llenergymeasure.config.models import ExperimentConfig


def is_study(path: Path) -> bool:
    """Tell whether a file, with what it builds on, describes a study."""
    return describes_study(read(path, ExperimentConfig).data)
