"""Whether an engine computes in what the precision of a configuration means. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llenergymeasure.config.precisions import QUANTISED, Precision, compute_dtype


def other_arithmetic(precision: Precision, in_force: Mapping[str, Any]) -> str | None:
    """Say what an engine does otherwise than its ``precision`` means, or ``None``.

    Args:
        precision: What was asked for.
        in_force: ``resolved.backend`` of the result; an engine that does not tell its
            ``compute_dtype`` or ``quantization`` is taken at its word.
    """
    dtype, wanted = in_force.get("compute_dtype"), compute_dtype(precision)
    if dtype not in (None, wanted):
        return f"precision: {precision} means to compute in {wanted}, and the engine has {dtype}"
    if "quantization" not in in_force:
        return None
    method = in_force["quantization"]
    if precision in QUANTISED and method is None:
        return f"precision: {precision} means quantised weights, and those of the engine are not"
    if precision not in QUANTISED and method is not None:
        return f"precision: {precision} means plain weights, and the engine has {method}"
    return None
