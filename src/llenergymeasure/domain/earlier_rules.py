"""Which figures of a stored result were made by rules that have changed since.

A result keeps the figures it was stored with. Where a later version makes such a figure otherwise,
the result says so once it is loaded, instead of posing as one of today.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

Stored = Mapping[str, Any]
"""A record as its file holds it, of any schema, and possibly damaged."""


class EarlierRule(NamedTuple):
    """A rule by which figures were made in earlier schemas.

    Attributes:
        until: First schema whose figures are made by another rule, such as ``"2.1"``.
        concerns: Tells whether a stored record has such figures.
        text: Which figures, and how they were made.
        pooled: Whether a study pools such figures.
    """

    until: str
    concerns: Callable[[Stored], bool]
    text: str
    pooled: bool = False


def figure(stored: Stored, path: str) -> Any:
    """Give what a record holds at a dotted path; ``None`` where there is nothing."""
    found: Any = stored
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


OF_EXPERIMENTS: tuple[EarlierRule, ...] = (
    EarlierRule(
        "2.1",
        lambda stored: figure(stored, "resolved.model.parameters") is not None,
        "parameters were computed from the model's configuration and not held against the loaded "
        "model: wrong for model types that are not built like Llama",
    ),
    EarlierRule(
        "2.1",
        lambda stored: figure(stored, "flops.useful_total") is not None,
        "FLOPs, MFU and MBU take every layer to be alike and to attend to the whole context: wrong "
        "for sliding windows, state-space or convolution layers, and interleaved experts",
    ),
    EarlierRule(
        "2.1",
        lambda stored: (
            figure(stored, "config.decoder.decoding_strategy") == "beam"
            and figure(stored, "latency.e2e_ms") is not None
        ),
        "E2E, TPOT, the energy-delay product and MBU of beam search end with the last token of the "
        "answer that was found, not when it was delivered: too short where a search went on",
        pooled=True,
    ),
)
"""Of the results of experiments."""

OF_STUDIES: tuple[EarlierRule, ...] = (
    EarlierRule(
        "2.2",
        lambda stored: bool(figure(stored, "sensitivity")),
        "the differences that show in 4 of 5 studies are as large as this study's estimate of its "
        "noise makes them: the next one, which does not know it either, shows them in 53 to 73 % "
        "of cases",
    ),
    EarlierRule(
        "2.2",
        lambda stored: bool(figure(stored, "comparisons")),
        "two configurations are judged by the noise of all, or by their own where that is larger: "
        "too narrow where configurations of more than two are not equally noisy",
    ),
)
"""Of the results of studies."""


def earlier(rules: Iterable[EarlierRule], stored: Stored) -> tuple[str, ...]:
    """Say which figures of a stored record were made by earlier rules."""
    schema = version_of(figure(stored, "schema_version"))
    if schema is None:  # which is for others to refuse
        return ()
    return tuple(
        rule.text
        for rule in rules
        if schema < (version_of(rule.until) or ()) and rule.concerns(stored)
    )


def version_of(text: Any) -> tuple[int, ...] | None:
    """Read the version of a schema; ``None`` for what is none."""
    parts = text.split(".") if isinstance(text, str) else []
    valid = parts and all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts)
    return tuple(int(part) for part in parts) if valid else None
