"""Numbers as people read them: SI prefixes, significant digits, intervals."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

WIDTH = 80
"""Columns of a terminal that everything printed fits in."""

_SMALLEST, _LARGEST = -9, 18
_MOST_DIGITS = 18  # more than a float has
_PREFIXES = dict(
    zip(range(_SMALLEST, _LARGEST + 1, 3), ("n", "µ", "m", "", *"kMGTPE"), strict=True)
)
"""Of SI, by their exponents."""


def significant(value: float, digits: int = 3) -> str:
    """Write a number with this many significant digits, trailing zeros included.

    Digits before the point are never rounded away: 12345 with 3 digits is ``12,345``.
    """
    return _fixed(value, digits - 1 - _exponent(value, digits))


def rounded_up(value: float, digits: int) -> str:
    """Write the smallest number of so many significant digits that is not below a value over 0."""
    step = 10.0 ** (_exponent(value, digits) - digits + 1)
    return significant(ceil(value / step * (1 - 1e-9)) * step, digits)


def quantity(value: float, unit: str, digits: int = 3, largest: int = _LARGEST) -> str:
    """Write a value with its unit and the SI prefix that keeps it readable, e.g. ``1.23 kJ``.

    Args:
        value: In the plain unit.
        unit: Its symbol.
        digits: Significant digits.
        largest: Exponent of the largest prefix that is usual for the unit; 0 for seconds.
    """
    exponent = _exponent(value, digits)
    prefix = _prefix(exponent, largest)
    return f"{_fixed(value / 10.0**prefix, digits - 1 - exponent + prefix)} " + (
        f"{_PREFIXES[prefix]}{unit}"
    )


def with_interval(value: float, half_width: float | None, unit: str) -> str:
    """Write a value and the half-width of its interval, e.g. ``812 J ± 6``.

    The interval decides the digits of both: it gets one significant digit, or two where it begins
    with a 1. Without an interval, or with one of zero, the value gets three.
    """
    if not half_width:
        return quantity(value, unit)
    place = min(_last_place(half_width), _exponent(value, 1))
    rounded, half = round(value, -place), round(half_width, -place)
    prefix = _prefix(_exponent(rounded, 15), _LARGEST)
    scale = 10.0**prefix
    shown, width = (_fixed(number / scale, prefix - place) for number in (rounded, half))
    return f"{shown} {_PREFIXES[prefix]}{unit} ± {width}"


def plain_interval(value: float, half_width: float | None) -> str:
    """Write the same without a unit and a prefix, for a column whose head tells them."""
    if not half_width:
        return significant(value)
    place = min(_last_place(half_width), _exponent(value, 1))
    return f"{_fixed(round(value, -place), -place)} ± {_fixed(round(half_width, -place), -place)}"


def prefix(value: float) -> tuple[float, str]:
    """Give the factor and the symbol of the SI prefix that keeps a value readable."""
    exponent = _prefix(_exponent(value, 3), _LARGEST)
    return 10.0**exponent, _PREFIXES[exponent]


def is_factor(ratio: float, lower: float, upper: float) -> bool:
    """Tell whether a ratio is told as a factor: over 2, under a half, or hardly known."""
    return upper > 4 * lower or ratio > 2 or ratio < 0.5


def change(ratio: float, lower: float, upper: float, *, factor: bool) -> str:
    """Write a ratio with its interval: ``+4.2 % (+1.1 to +7.3)``, or ``x 3.1 (2.9 to 3.3)``.

    Where the interval leaves no change out, so do its digits.

    Args:
        ratio: What is told, over 0.
        lower: Its lower end.
        upper: Its upper end.
        factor: Whether as a factor; beside others that are, one near 1 is as well.
    """
    if factor and upper > 4 * lower:
        places = 3 if 1.0 in (round(lower, 1), round(upper, 1)) else 2  # 1.02 is not 1
        places = _telling(significant, places, lower, upper, 1.0)
        shown = (significant(one, places) for one in (ratio, lower, upper))
        return "x {} ({} to {})".format(*shown)
    if factor:
        digits = max(-_last_place((upper - lower) / 2 or ratio), 0)
        digits = _telling(_fixed, digits, lower, upper, 1.0)
        return f"x {ratio:,.{digits}f} ({lower:,.{digits}f} to {upper:,.{digits}f})"
    shares = [100 * (one - 1) for one in (ratio, lower, upper)]
    digits = min(max(-_last_place((shares[2] - shares[1]) / 2 or 1.0), int(abs(shares[0]) < 10)), 3)
    digits = _telling(_fixed, digits, shares[1], shares[2], 0.0)
    middle, low, high = (f"{share:+,.{digits}f}" for share in shares)
    return f"{middle} % ({low} to {high})"


def _telling(
    write: Callable[[float, int], str], digits: int, lower: float, upper: float, none: float
) -> int:
    """Give as many digits, or more, as an interval needs to show that it leaves a value out."""
    if lower <= none <= upper:
        return digits
    end = min(lower, upper, key=lambda one: abs(one - none))
    more = range(digits, _MOST_DIGITS)
    return next((n for n in more if float(write(end, n).replace(",", "")) != none), digits)


def seconds(value_s: float) -> str:
    """Write a duration given in seconds, e.g. ``12.3 ms`` or ``3.21 s``."""
    return quantity(value_s, "s", largest=0)


def span(value_s: float) -> str:
    """Write a time as people say it: ``0.4 s``, ``42 s``, ``7 min``, ``3 h 20 min``."""
    if value_s < 9.95:
        return f"{value_s:.1f}".removesuffix(".0") + " s"
    if value_s < 99.5:
        return f"{value_s:.0f} s"
    minutes = round(value_s / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02} min"
    return f"{hours // 24} d {hours % 24} h"


def milliseconds(value_ms: float) -> str:
    """Write a duration given in milliseconds."""
    return seconds(value_ms / 1000)


def memory(value_mib: float) -> str:
    """Write an amount of memory given in MiB, e.g. ``512 MiB`` or ``15.3 GiB``."""
    if value_mib < 1000:
        return f"{significant(value_mib)} MiB"
    return f"{significant(value_mib / 1024)} GiB"


def count(number: int, noun: str = "", plural: str = "") -> str:
    """Write a whole number with thousands separated, and its noun in the right number."""
    name = noun if number == 1 else plural or f"{noun}s"
    return f"{number:,} {name}" if noun else f"{number:,}"


def cut(line: str, width: int = WIDTH) -> str:
    """Shorten a line that is wider than there is room; an ellipsis says that it was."""
    return line if len(line) <= width else f"{line[: width - 1]}…"


def percent(share: float) -> str:
    """Write a share of 1 as a percentage, e.g. ``12.3 %``."""
    return f"{significant(100 * share)} %"


def _fixed(value: float, decimals: int) -> str:
    return f"{value:,.{max(decimals, 0)}f}"


def _exponent(value: float, digits: int) -> int:
    """Exponent of ten of a value rounded to some digits; 0 for zero."""
    return int(f"{value:.{digits - 1}e}".partition("e")[2])


def _last_place(half_width: float) -> int:
    exponent = _exponent(half_width, 2)
    return exponent - 1 if half_width / 10.0**exponent < 1.95 else exponent


def _prefix(exponent: int, largest: int) -> int:
    return max(_SMALLEST, min(largest, exponent // 3 * 3))
