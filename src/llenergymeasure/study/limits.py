"""How long an experiment may take on this machine: from its plan, or as the study says."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.registry import backend_entry
from llenergymeasure.config.user_config import EffectiveSettings
from llenergymeasure.core.gpu_survey import survey_gpus
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.core.models.sources import architecture_of, resolve
from llenergymeasure.study.estimate import Rates, rates_of, timeout_s


class Machine(NamedTuple):
    """What of this machine decides how fast an experiment is.

    Attributes:
        gpu_name: The first GPU as NVML names it; ``None`` where there is none.
        torch_uses_gpus: Whether the torch of this interpreter can compute on it.
    """

    gpu_name: str | None
    torch_uses_gpus: bool = True


def this_machine() -> Machine:
    """Look; no engine is imported."""
    gpus, found = survey_gpus().gpus, find_spec("torch")
    # The library that only a build for CUDA has; a torch that is not here may be one.
    folders = (found.submodule_search_locations if found else None) or ()
    cuda = not folders or any(any(Path(one, "lib").glob("*torch_cuda*")) for one in folders)
    return Machine(gpus[0].name if gpus else None, cuda)


class TimeLimits:
    """Tells the time limit of an experiment, and what it is derived from.

    Args:
        settings: How it is run on this machine.
        given_s: ``execution.timeout_s``, which holds for all; ``None`` estimates each.
        machine: Looks at this machine, once and only where it matters.
    """

    def __init__(
        self,
        settings: EffectiveSettings,
        given_s: float | None,
        machine: Callable[[], Machine] = this_machine,
    ) -> None:
        self._settings, self._given_s = settings, given_s
        self._machine, self._shape = (
            cache(machine),
            cache(lambda *model: architecture_of(resolve(*model))),
        )

    def of(self, config: ExperimentConfig) -> float:
        """Give the limit in seconds."""
        if self._given_s is not None:
            return self._given_s
        return timeout_s(config, self.shape(config), self.rates(config))

    def rates(self, config: ExperimentConfig) -> Rates:
        """Give the rates of the device that an experiment runs on."""
        return rates_of(config, self.gpu_name(config))

    def shape(self, config: ExperimentConfig) -> ModelArchitecture | None:
        """Give the shape of its model; ``None`` where that is not on this machine yet."""
        return self._shape(config.model, config.revision)

    def gpu_name(self, config: ExperimentConfig) -> str | None:
        """Name the GPU that it runs on; ``None`` for a CPU.

        Another interpreter or a container is taken to use the GPU where there is one.
        """
        facts = backend_entry(config.backend)
        device = getattr(config.section, "device", None)
        if not facts.runs_a_model or device == "cpu":
            return None
        here = self._settings.config.runner(config.backend) == "local"
        if facts.needs_torch_for_gpus and device is None and here:
            return self._machine().gpu_name if self._machine().torch_uses_gpus else None
        return self._machine().gpu_name
