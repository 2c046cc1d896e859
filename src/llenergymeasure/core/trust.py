"""How far a result can be trusted: one function from recorded data to a verdict.

A rule is a function from :class:`~.evidence.Evidence` to a finding or ``None``. To add one, write
it, name it in ``_RULES`` (or in ``RULES`` of :mod:`~.device_rules` and :mod:`~.energy_rules`), and
describe its code in :mod:`llenergymeasure.domain.warnings`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from llenergymeasure.core import device_rules, energy_rules
from llenergymeasure.core.evidence import Evidence, Found
from llenergymeasure.domain.results import TrustReason, TrustVerdict
from llenergymeasure.domain.warnings import FINDINGS

__all__ = ["Evidence", "assess", "warning_codes"]

SHORT_WINDOW_S = 10.0
FEW_BATCHES = 10
OTHER_SHARE = 0.05

Verdict = Literal["ok", "caution", "invalid"]

_WORST_FIRST = ("invalid", "caution", "info")


def assess(evidence: Evidence) -> TrustVerdict:
    """Reach a verdict: the worst of the reasons.

    Every finding bears on the energy figures, so theirs is the same verdict; where no source
    was to be read it is ``off``, and the overall verdict is about the times alone. That ``auto``
    found no source is said all the same.
    """
    reasons = sorted(
        map(_reason, _findings(evidence)), key=lambda reason: _WORST_FIRST.index(reason.level)
    )
    verdict = _worst(reasons)
    return TrustVerdict(
        verdict=verdict,
        energy=verdict if evidence.energy_asked else "off",
        reasons=tuple(reasons),
    )


def warning_codes(verdict: TrustVerdict) -> tuple[str, ...]:
    """List the codes of everything in a verdict that is more than information, worst first."""
    return tuple(reason.code for reason in verdict.reasons if reason.level != "info")


def _findings(evidence: Evidence) -> Iterator[Found]:
    for rule in (*_RULES, *device_rules.RULES):
        if (finding := rule(evidence)) is not None:
            yield finding
    for find in energy_rules.RULES:
        yield from find(evidence)


def _reason(found: Found) -> TrustReason:
    meaning = FINDINGS[found.code]
    return TrustReason(
        code=found.code, level=meaning.level, detail=found.detail, remedy=meaning.remedy
    )


def _worst(reasons: Iterable[TrustReason]) -> Verdict:
    levels = {reason.level for reason in reasons}
    if "invalid" in levels:
        return "invalid"
    return "caution" if "caution" in levels else "ok"


def _nothing_completed(evidence: Evidence) -> Found | None:
    if evidence.requests_completed:
        return None
    return Found("nothing_completed", f"none of {evidence.requests_failed} requests ended well")


def _failed_requests(evidence: Evidence) -> Found | None:
    if not evidence.requests_failed:
        return None
    total = evidence.requests_completed + evidence.requests_failed
    return Found("failed_requests", f"{evidence.requests_failed} of {total} requests failed")


def _energy_unmeasurable(evidence: Evidence) -> Found | None:
    if not evidence.energy_asked or evidence.energy_kind != "unmeasurable":
        return None
    notes = "; ".join(evidence.energy_notes)
    return Found("energy_unmeasurable", notes or "the energy source gave no figure")


def _no_energy_source(evidence: Evidence) -> Found | None:
    return None if evidence.no_source is None else Found("no_energy_source", evidence.no_source)


def _cpu_shared(evidence: Evidence) -> Found | None:
    load = evidence.cpu_load
    if load is None or load.other_share <= OTHER_SHARE:
        return None
    return Found(
        "cpu_shared",
        f"other work had {100 * load.other_share:.0f} % of the CPU time of the machine, the "
        f"experiment {100 * load.own_share:.0f} %",
    )


def _modelled_energy(evidence: Evidence) -> Found | None:
    if not evidence.energy_asked or evidence.energy_kind != "modelled":
        return None
    return Found("modelled_energy", "energy of this window is modelled, at least in part")


def _window_short(evidence: Evidence) -> Found | None:
    if evidence.window_s >= SHORT_WINDOW_S:
        return None
    return Found("window_short", f"window of {evidence.window_s:.3g} s, under {SHORT_WINDOW_S:g} s")


def _random_weights(evidence: Evidence) -> Found | None:
    if evidence.weights != "random":
        return None
    return Found("random_weights", "the weights are random")


def _prompts_truncated(evidence: Evidence) -> Found | None:
    if not evidence.prompts_truncated:
        return None
    cut = evidence.prompts_truncated
    return Found("prompts_truncated", f"{cut:,} {'prompt was' if cut == 1 else 'prompts were'} cut")


def _drift_not_assessable(evidence: Evidence) -> Found | None:
    if evidence.batches >= FEW_BATCHES or evidence.passes >= 2:
        return None
    noun = "batch" if evidence.batches == 1 else "batches"
    return Found(
        "drift_not_assessable",
        f"{evidence.batches} {noun} and one pass; it takes {FEW_BATCHES} batches or two passes",
    )


_RULES: tuple[Callable[[Evidence], Found | None], ...] = (
    _nothing_completed,
    _energy_unmeasurable,
    _no_energy_source,
    _failed_requests,
    _cpu_shared,
    _window_short,
    _modelled_energy,
    _random_weights,
    _prompts_truncated,
    _drift_not_assessable,
)
