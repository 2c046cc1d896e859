"""What the check runs on."""

from __future__ import annotations

from gpu_check.plan import Outcome, Plan
from llenergymeasure.core.environment import capture


def check(_plan: Plan) -> Outcome:
    """Describe the machine, its GPUs and the software; there must be a GPU."""
    found = capture()
    figures = found.model_dump(mode="json")
    if not found.gpus:
        return Outcome("failed", f"there is no GPU ({found.gpu_note})", figures)
    return Outcome("ok", "", figures)
