"""Human-readable names of result directories, and claiming one without overwriting another."""

from __future__ import annotations

import itertools
import re
from datetime import datetime
from pathlib import Path

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.registry import backend_entry
from llenergymeasure.exceptions import PUT_ELSEWHERE, ConfigError, cause_and_remedy

MAX_LENGTH = 100
"""Most characters of a name, before the ``_1`` of a repeated one."""
MAX_SLOT_LENGTH = 80
"""Most characters of the name of an experiment inside a study."""


def experiment_name(model: str, backend: str, when: datetime) -> str:
    """Name an experiment, e.g. ``llama-3.1-8b_pytorch_2026-02-18T14-30-05``.

    The model contributes the last part of its path, so ``meta-llama/Llama-3.1-8B`` gives
    ``llama-3.1-8b``; ``random:`` stays visible as ``random-``. Letters become lower case and
    everything but ASCII letters, digits, dots and hyphens becomes a hyphen, so an underscore only
    ever separates the three parts. A long model name is cut, then a long backend name.
    """
    time = when.strftime("%Y-%m-%dT%H-%M-%S")
    engine = _sanitised(backend, "backend")[:40].rstrip(".-")
    room = MAX_LENGTH - len(f"_{engine}_{time}")
    return f"{_sanitised(_short(model), 'model')[:room].rstrip('.-')}_{engine}_{time}"


def slot_name(number: int, cycle: int, config: ExperimentConfig) -> str:
    """Name an experiment of a study, e.g. ``0001_pytorch_bf16_bs8_c1``.

    Number in the order of running (four digits, more beyond 9999), backend, precision, the batch
    size where the backend's section says one, and the cycle. Depends on nothing else, so that a
    study that grows keeps its names. At most 80 characters; a long backend name is cut.
    """
    batch = getattr(config.section, backend_entry(config.backend).batch_field, None)
    size = "" if batch is None else f"_bs{batch}"
    rest = f"_{config.precision}{size}_c{cycle}"
    room = MAX_SLOT_LENGTH - len(f"{number:04d}_{rest}")
    return f"{number:04d}_{_sanitised(config.backend, 'backend')[:room].rstrip('.-')}{rest}"


def study_directory_name(name: str | None, when: datetime) -> str:
    """Name the directory of a study, e.g. ``batch-size-effects_2026-02-18T15-00-00``."""
    return f"{name or 'study'}_{when.strftime('%Y-%m-%dT%H-%M-%S')}"


def claim_directory(parent: Path, name: str) -> Path:
    """Create a directory of this name, or of ``name_1``, ``name_2`` and so on where it exists.

    Creation is exclusive, so two processes never get the same one.

    Raises:
        ConfigError: The parent cannot be written to.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count():
            candidate = parent / (f"{name}_{number}" if number else name)
            try:
                candidate.mkdir()
            except FileExistsError:
                continue
            return candidate
    except OSError as error:
        raise ConfigError(
            f"cannot create a directory for results in {parent}: "
            f"{cause_and_remedy(error, parent)}, or {PUT_ELSEWHERE}",
            where=str(parent),
        ) from None
    raise AssertionError  # itertools.count() never ends


def _short(model: str) -> str:
    prefix, _, rest = model.rpartition("random:")
    last = rest.rstrip("/").rpartition("/")[2]
    return last if rest == model else f"{prefix}random-{last}"


def _sanitised(text: str, fallback: str) -> str:
    return re.sub(r"[^a-z0-9.-]+", "-", text.lower()).strip(".-") or fallback
