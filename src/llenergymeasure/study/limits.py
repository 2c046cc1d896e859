"""How long an experiment may take on this machine: from its plan, or as the study says."""

from __future__ import annotations

from functools import cache

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.user_config import EffectiveSettings
from llenergymeasure.core.gpu_survey import survey_gpus
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.core.models.sources import architecture_of, resolve
from llenergymeasure.study.estimate import rates_of, timeout_s


class TimeLimits:
    """Tells the time limit of an experiment.

    Args:
        settings: How it is run on this machine.
        given_s: ``execution.timeout_s``, which holds for all; ``None`` estimates each.
    """

    def __init__(self, settings: EffectiveSettings, given_s: float | None) -> None:
        self._given_s = given_s
        self._device = cache(_device_name)
        self._shape = cache(_architecture)

    def of(self, config: ExperimentConfig) -> float:
        """Give the limit in seconds."""
        if self._given_s is not None:
            return self._given_s
        on_cpu = getattr(config.section, "device", None) == "cpu" or config.backend == "scripted"
        rates = rates_of(config, None if on_cpu else self._device())
        return timeout_s(config, self._shape(config.model, config.revision), rates)


def _device_name() -> str | None:
    gpus = survey_gpus().gpus
    return gpus[0].name if gpus else None


def _architecture(model: str, revision: str | None) -> ModelArchitecture | None:
    return architecture_of(resolve(model, revision))
