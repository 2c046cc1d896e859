"""How far a result can be trusted: one function from recorded data to a verdict.

A rule is a function from :class:`~.evidence.Evidence` to findings. To add a finding, yield it in
the rule that it belongs to, here, in :mod:`~.device_rules` or in :mod:`~.energy_rules`, and
describe its code in :mod:`llenergymeasure.domain.warnings`; that table has the order of findings.
"""

from __future__ import annotations

from collections.abc import Iterator
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

_LEVELS = ("invalid", "caution", "info")
_WORST_FIRST = sorted(FINDINGS, key=lambda code: _LEVELS.index(FINDINGS[code].level))


def assess(evidence: Evidence) -> TrustVerdict:
    """Reach a verdict: the worst of the reasons.

    Every finding bears on the energy figures, so theirs is the same verdict; where no source
    was to be read it is ``off``, and the overall verdict is about the times alone. That ``auto``
    found no source is said all the same.
    """
    rules = (_of_the_work, _of_the_source, device_rules.findings, *energy_rules.RULES)
    found = [finding for rule in rules for finding in rule(evidence)]
    reasons = [
        TrustReason(
            code=code, level=FINDINGS[code].level, detail=detail, remedy=FINDINGS[code].remedy
        )
        for code, detail in sorted(found, key=lambda one: _WORST_FIRST.index(one.code))
    ]
    worst = reasons[0].level if reasons else "info"
    verdict: Verdict = "ok" if worst == "info" else worst
    return TrustVerdict(
        verdict=verdict,
        energy=verdict if evidence.energy_asked else "off",
        reasons=tuple(reasons),
    )


def warning_codes(verdict: TrustVerdict) -> tuple[str, ...]:
    """List the codes of everything in a verdict that is more than information, worst first."""
    return tuple(reason.code for reason in verdict.reasons if reason.level != "info")


def _of_the_work(evidence: Evidence) -> Iterator[Found]:
    """Find what bears on every figure: requests, weights, the window, and the CPUs' company."""
    completed, failed = evidence.requests_completed, evidence.requests_failed
    if not completed:
        yield Found("nothing_completed", f"none of {failed} requests ended well")
    if failed:
        yield Found("failed_requests", f"{failed} of {completed + failed} requests failed")
    load = evidence.cpu_load
    if load is not None and load.other_share > OTHER_SHARE:
        yield Found(
            "cpu_shared",
            f"other work had {100 * load.other_share:.0f} % of the CPU time of the machine, the "
            f"experiment {100 * load.own_share:.0f} %",
        )
    window_s = evidence.window_s
    if window_s < SHORT_WINDOW_S:
        yield Found("window_short", f"window of {window_s:.3g} s, under {SHORT_WINDOW_S:g} s")
    if evidence.weights == "random":
        yield Found("random_weights", "the weights are random")
    if cut := evidence.prompts_truncated:
        prompts = "prompt was" if cut == 1 else "prompts were"
        yield Found("prompts_truncated", f"{cut:,} {prompts} cut")
    if evidence.batches < FEW_BATCHES and evidence.passes < 2:
        noun = "batch" if evidence.batches == 1 else "batches"
        yield Found(
            "drift_not_assessable",
            f"{evidence.batches} {noun} and one pass; it takes {FEW_BATCHES} batches or two passes",
        )


def _of_the_source(evidence: Evidence) -> Iterator[Found]:
    """Find that energy is not, or not all, what a meter read."""
    if evidence.energy_asked and evidence.energy_kind == "unmeasurable":
        notes = "; ".join(evidence.energy_notes)
        yield Found("energy_unmeasurable", notes or "the energy source gave no figure")
    if evidence.no_source is not None:
        yield Found("no_energy_source", evidence.no_source)
    if evidence.energy_asked and evidence.energy_kind == "modelled":
        yield Found("modelled_energy", "energy of this window is modelled, at least in part")
