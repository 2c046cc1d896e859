"""How long an experiment will take, from its configuration and the shape of its model. Pure.

Figures to plan with, not to report. What runs by the clock is known; the rest is a roofline:

    decode pass   max(weights read / bandwidth, operations / compute) + layers x launch
    prefill       operations / compute + layers x launch
    operations    2 x weights that a token passes through x tokens
    batch         prefill + (new tokens - 1) x decode pass
    load          start of the process + weights / reading speed
    warm-up       n_warmup batches, and at least the thermal floor where energy is measured
    window        whole passes over the prompts until min_duration_seconds is reached

Every request is taken to run to ``max_new_tokens``. The constants below are round figures on the
slow side; a plan is right within a factor of two or three, which is what a time-out needs.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from statistics import fmean
from typing import NamedTuple

from llenergymeasure.config.backend_configs import ScriptedConfig
from llenergymeasure.config.experiment_fields import MOST_PROMPTS
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.energy.stored import SPOT_S
from llenergymeasure.core.flops import weight_bytes_read
from llenergymeasure.core.memory_estimate import estimate_memory, rows_at_once, weight_bytes
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.core.peaks import peak_of

SHARE_OF_PEAK = 0.4
LAUNCH_S = 0.4e-3  # of a layer's operators from Python, at small batches
START_S = 8.0  # an interpreter that imports its engine
SCRIPTED_START_S = 0.5
READ_BYTES_S = 0.5e9
TIMEOUT_SLACK_S = 300.0
TIMEOUT_FACTOR = 10.0
LOADING_SLACK_S = 1800.0
CLOCK_FACTOR = 2.0
ASSUMED_AT_MOST_S = 12 * 3600.0  # 8 billion on a CPU are expected to take 8 hours by default

_LLAMA_2_70B = {
    # https://huggingface.co/meta-llama/Llama-2-70b-hf, config.json
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
}


class Rates(NamedTuple):
    """What a device gets done.

    Attributes:
        flop_s: Operations a second.
        bytes_s: Bytes of memory read a second.
    """

    flop_s: float
    bytes_s: float


CPU = Rates(50e9, 10e9)
UNKNOWN_GPU = Rates(20e12, 200e9)


class Duration(NamedTuple):
    """Parts of an experiment, in seconds.

    Attributes:
        load_s: Starting the process and loading the model.
        work_s: Batches of warm-up and window, as long as they take by themselves.
        clock_s: What runs by the clock on top: baseline, thermal floor, least window.
    """

    load_s: float
    work_s: float
    clock_s: float

    @property
    def total_s(self) -> float:
        """The whole experiment."""
        return self.load_s + self.work_s + self.clock_s


def rates_of(config: ExperimentConfig, device_name: str | None) -> Rates:
    """Give the rates of a device by the name NVML reports; ``None`` is a CPU."""
    if device_name is None:
        return CPU
    peak = peak_of(device_name)
    if peak is None:
        return UNKNOWN_GPU
    flop_s = peak.compute_tflops(config.precision) * 1e12
    return Rates(SHARE_OF_PEAK * flop_s, SHARE_OF_PEAK * peak.bandwidth_gb_s * 1e9)


def duration(
    config: ExperimentConfig,
    architecture: ModelArchitecture | None,
    rates: Rates,
    *,
    measured: bool,
    cold_start: bool = False,
) -> Duration | None:
    """Estimate how long an experiment takes.

    Args:
        config: The experiment.
        architecture: Shape of its model; ``None`` where it is not known yet.
        rates: Of the device it runs on.
        measured: Whether a source measures energy, so that baseline and thermal floor apply.
        cold_start: Whether warm-up is left out.

    Returns:
        The estimate; ``None`` where the shape of the model is needed and not known.
    """
    batch_s = _batch_s(config, architecture, rates)
    if batch_s is None:
        return None
    beams = config.decoder.num_beams or 1
    processes = getattr(config.section, "num_processes", None) or 1
    prompts, at_once = config.n or MOST_PROMPTS, max(1, rows_at_once(config) // beams)
    pass_s = batch_s * math.ceil(prompts / processes / at_once)
    least_s = config.window.min_duration_seconds
    warmup_s = 0.0 if cold_start else config.warmup.n_warmup * batch_s
    floor_s = config.warmup.thermal_floor_seconds if measured and not cold_start else 0.0
    window_s = pass_s * max(1, math.ceil(least_s / pass_s)) if pass_s else least_s
    work_s = warmup_s + pass_s
    scripted = isinstance(config.section, ScriptedConfig)
    load_s = SCRIPTED_START_S if scripted else _load_s(config, architecture)
    clock_s = _baseline_s(config, measured) + max(0.0, floor_s - warmup_s) + window_s - pass_s
    return Duration(load_s, work_s, clock_s)


def first_look_s(config: ExperimentConfig, *, measured: bool) -> float:
    """Say how much longer the first experiment on a device takes, whose idle power nobody knows.

    Later ones confirm it by a short look, unless measuring it takes hardly longer.
    """
    whole_s = _baseline_s(config, measured) / 2
    return whole_s - SPOT_S if whole_s > 2 * SPOT_S else 0.0


def timeout_s(
    config: ExperimentConfig,
    architecture: ModelArchitecture | None,
    rates: Rates,
) -> float:
    """Say after how many seconds an experiment hangs rather than works.

    5 minutes, 10 times what loading and computing are expected to take, and twice what runs by
    the clock. A model whose shape is not known is taken to be one of 70 billion parameters, but
    to load and compute for 12 hours at most; what it takes to download one is not in it.
    """
    known = architecture or ModelArchitecture.from_config(_LLAMA_2_70B)
    expected = duration(config, known, rates, measured=True)
    assert expected is not None  # the shape is known
    computed_s = TIMEOUT_FACTOR * (expected.load_s + expected.work_s)
    if architecture is None:
        computed_s = min(computed_s, ASSUMED_AT_MOST_S)
    return TIMEOUT_SLACK_S + computed_s + CLOCK_FACTOR * expected.clock_s


def loading_limit_s(config: ExperimentConfig, architecture: ModelArchitecture | None) -> float:
    """Say after how many seconds loading a model hangs rather than works.

    Half an hour, in which a model may have to be fetched, and 10 times what starting the process
    and reading the weights is expected to take. A model whose shape is not known is taken to be
    one of 70 billion parameters.
    """
    known = architecture or ModelArchitecture.from_config(_LLAMA_2_70B)
    return LOADING_SLACK_S + TIMEOUT_FACTOR * _load_s(config, known)


def _load_s(config: ExperimentConfig, architecture: ModelArchitecture | None) -> float:
    read = 0.0 if architecture is None else weight_bytes(architecture, config.precision)
    return START_S + read / READ_BYTES_S


def _batch_s(
    config: ExperimentConfig, architecture: ModelArchitecture | None, rates: Rates
) -> float | None:
    if isinstance(config.section, ScriptedConfig):
        script = config.section
        tokens = min(script.output_tokens or config.max_new_tokens, config.max_new_tokens)
        return (script.ttft_ms + (tokens - 1) * script.itl_ms) / 1000
    if architecture is None:
        return None
    memory = estimate_memory(config, architecture)
    spread = Rates(rates.flop_s * memory.shards, rates.bytes_s * memory.shards)
    prefill_s = _pass_s(config, architecture, spread, memory.rows * memory.input_tokens)
    decode_s = _pass_s(config, architecture, spread, memory.rows)
    differential = config.window.phases == "differential"
    return prefill_s * (2 if differential else 1) + (config.max_new_tokens - 1) * decode_s


def _pass_s(
    config: ExperimentConfig, architecture: ModelArchitecture, rates: Rates, tokens: int
) -> float:
    weights = architecture.linear_parameters_active + architecture.lm_head_parameters
    computed_s = 2 * weights * tokens / rates.flop_s
    read_s = weight_bytes_read(architecture, config.precision, tokens) / rates.bytes_s
    return max(computed_s, read_s) + architecture.layers * LAUNCH_S


def _baseline_s(config: ExperimentConfig, measured: bool) -> float:
    """The idle device is measured before the model loads and with it resident."""
    return 2 * config.baseline.duration_seconds if measured and config.baseline.enabled else 0.0


class TimeLeft:
    """What the rest of a study takes: its experiments, as those before them took, and its pauses.

    A configuration that has run takes its mean; another one the mean of all that have.

    Args:
        rest: Configuration, and pause before it in seconds, of each experiment, in order.
    """

    def __init__(self, rest: Iterable[tuple[int, float]] = ()) -> None:
        self._rest = deque(rest)
        self._seen: dict[int, list[float]] = {}

    def learn(self, configuration: int, seconds: float) -> None:
        """Take in one that ran to its end."""
        self._seen.setdefault(configuration, []).append(seconds)

    def begin(self) -> None:
        """Take the next experiment, and the pause before it, off the rest."""
        self._rest.popleft()

    def seconds(self) -> float | None:
        """Say how long the rest takes.

        Returns:
            Seconds, ``None`` while nothing has finished.
        """
        if not self._seen:
            return None
        means = {one: fmean(taken) for one, taken in self._seen.items()}
        typical_s = fmean(means.values())
        return sum(means.get(one, typical_s) + pause_s for one, pause_s in self._rest)
