"""Every finding that bears on how far a result can be trusted, by its stable code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["invalid", "caution", "info"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a code means.

    Attributes:
        level: How much it weighs.
        meaning: Why it matters.
        remedy: What to do about it.
    """

    level: Level
    meaning: str
    remedy: str


FINDINGS: dict[str, Finding] = {
    "nothing_completed": Finding(
        level="invalid",
        meaning="No request ended well, so there is nothing to relate time or energy to.",
        remedy="read the errors in requests.parquet and log.txt",
    ),
    "energy_unmeasurable": Finding(
        level="invalid",
        meaning="An energy figure was asked for, and no source could give one.",
        remedy="read the notes of the energy source; llem config lists the sources of this "
        "machine, and energy_backend: none asks for no energy",
    ),
    "failed_requests": Finding(
        level="caution",
        meaning="Failed requests took time and energy, and are in no average.",
        remedy="read the errors in requests.parquet and log.txt, mend their cause and repeat",
    ),
    "window_short": Finding(
        level="caution",
        meaning="In a short window, edges and single stalls weigh heavily.",
        remedy="set window.min_duration_seconds: 10 or more, or raise n",
    ),
    "modelled_energy": Finding(
        level="caution",
        meaning="The energy comes from a model of the hardware, not from a meter; it has no "
        "interval.",
        remedy="compare with other modelled figures only; llem config says for each source of this "
        "machine whether it measures",
    ),
    "random_weights": Finding(
        level="caution",
        meaning="The values of the weights shift power draw by several per cent.",
        remedy="measure the trained model before publishing a figure",
    ),
    "prompts_truncated": Finding(
        level="info",
        meaning="Prompts were cut, so the workload is shorter than the dataset's.",
        remedy="raise max_input_tokens, or set it to null, to keep prompts whole",
    ),
    "drift_not_assessable": Finding(
        level="info",
        meaning="Whether warm-up was long enough and the device steady can only be judged on "
        "several batches or identical passes.",
        remedy="set window.min_duration_seconds so that the prompts are passed over twice",
    ),
}
