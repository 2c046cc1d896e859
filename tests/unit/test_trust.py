"""The verdict on a result, finding by finding."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace

import pytest

from llenergymeasure.core import trust
from llenergymeasure.core.trust import Evidence, assess, warning_codes
from llenergymeasure.domain.warnings import FINDINGS

SOUND = Evidence(
    window_s=60.0,
    passes=2,
    batches=100,
    requests_completed=200,
    requests_failed=0,
    prompts_truncated=0,
    weights="pretrained",
    energy_asked=True,
    energy_kind="measured",
)

CASES: dict[str, Evidence] = {
    "nothing_completed": replace(SOUND, requests_completed=0),
    "energy_unmeasurable": replace(SOUND, energy_kind="unmeasurable"),
    "failed_requests": replace(SOUND, requests_failed=3),
    "window_short": replace(SOUND, window_s=9.99),
    "modelled_energy": replace(SOUND, energy_kind="modelled"),
    "random_weights": replace(SOUND, weights="random"),
    "prompts_truncated": replace(SOUND, prompts_truncated=4),
    "drift_not_assessable": replace(SOUND, batches=9, passes=1),
}


def test_a_sound_measurement_is_ok_without_reasons() -> None:
    verdict = assess(SOUND)
    assert (verdict.verdict, verdict.energy, verdict.reasons) == ("ok", "ok", ())
    assert warning_codes(verdict) == ()


@pytest.mark.parametrize("code", CASES)
def test_each_finding_is_made_alone_and_weighs_as_the_table_says(code: str) -> None:
    verdict = assess(CASES[code])
    assert [reason.code for reason in verdict.reasons] == [code]
    level = FINDINGS[code].level
    assert verdict.reasons[0].level == level
    assert verdict.reasons[0].remedy == FINDINGS[code].remedy
    assert verdict.reasons[0].detail
    assert verdict.verdict == verdict.energy == ("ok" if level == "info" else level)
    assert warning_codes(verdict) == (() if level == "info" else (code,))


def test_every_code_of_the_table_can_be_found() -> None:
    assert set(CASES) == set(FINDINGS)
    assert set(re.findall(r'Found\(\s*"(\w+)"', inspect.getsource(trust))) == set(FINDINGS)


def test_a_window_of_ten_seconds_is_long_enough() -> None:
    assert assess(replace(SOUND, window_s=10.0)).verdict == "ok"


def test_ten_batches_or_a_second_pass_can_be_assessed() -> None:
    assert assess(replace(SOUND, batches=10, passes=1)).reasons == ()
    assert assess(replace(SOUND, batches=1, passes=2)).reasons == ()


def test_energy_switched_off_is_off_and_times_keep_their_verdict() -> None:
    off = replace(SOUND, energy_asked=False, energy_kind="unmeasurable")
    assert (assess(off).verdict, assess(off).energy) == ("ok", "off")
    short = assess(replace(off, window_s=1.0))
    assert (short.verdict, short.energy) == ("caution", "off")


def test_an_unmeasurable_energy_says_why() -> None:
    evidence = replace(
        CASES["energy_unmeasurable"], energy_notes=("the counter was reset", "it is old")
    )
    assert assess(evidence).reasons[0].detail == "the counter was reset; it is old"


def test_reasons_come_worst_first_and_the_worst_decides() -> None:
    verdict = assess(
        replace(
            SOUND,
            batches=1,
            passes=1,
            window_s=1.0,
            prompts_truncated=1,
            energy_kind="unmeasurable",
        )
    )
    levels = [reason.level for reason in verdict.reasons]
    assert levels == ["invalid", "caution", "info", "info"]
    assert (verdict.verdict, verdict.energy) == ("invalid", "invalid")
    assert warning_codes(verdict) == ("energy_unmeasurable", "window_short")
