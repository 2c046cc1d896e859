"""How pictures are drawn: Vega-Lite specifications, plain JSON without data.

Specification: https://vega.github.io/vega-lite/docs/spec.html. Data has the names ``points`` and
``differences``; the script of the page fills them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from llenergymeasure.domain.study_result import ENERGY_PER_TOKEN, FIGURES, TPOT

SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
_MOST_NAMED = 24  # points whose names do not cover each other

Spec = dict[str, Any]
_FIT = {"type": "fit-x", "contains": "padding"}


def plane(
    across: str, up: str, series: Sequence[str], points: int, layers: Collection[str]
) -> Spec:
    """Draw speed against energy, with both intervals and a line over batch or load.

    Args:
        across: Figure of the x axis; of a TPOT its inverse is drawn.
        up: Figure of the y axis.
        series: Lines that have colours of their own; empty for one colour.
        points: How many configurations there are.
        layers: Which of ``line``, ``across`` and ``up`` have something to draw beside the points.
    """
    many = points > _MOST_NAMED
    axes = {"x": _axis("x", speed_title(across)), "y": _axis("y", _title(up))}
    kind: Spec = {"type": "log"} if up == ENERGY_PER_TOKEN.name else {"zero": False}
    axes["x"]["scale"] = {"zero": False}
    axes["y"]["scale"] = {"nice": False, "padding": 24} | kind
    colour = _COLOUR | {"scale": {"domain": list(series)}}
    shown: Spec = {"color": colour} if series else {}
    fill = colour | {"legend": None} if series else {"value": "#2f7fc1"}
    bars: Spec = {"type": "rule", "strokeWidth": 1, "opacity": 0.25 if many else 0.7}
    line = {"type": "line", "opacity": 0.15 if many else 0.6, "strokeWidth": 1.2}
    beside = {
        "line": {
            "transform": [{"filter": "isValid(datum.order)"}],
            "mark": line,
            "encoding": {"order": {"field": "order"}, "detail": {"field": "series"}, **shown},
        },
        "across": _interval("x", axes["x"], bars, shown),
        "up": _interval("y", axes["y"], bars, shown),
    }
    drawn: list[Spec] = [spec for name, spec in beside.items() if name in layers]
    mark = {"type": "point", "size": 30 if many else 90, "strokeWidth": 1.6}
    drawn.append({"mark": mark, "encoding": shown | {"fill": _HOLLOW | fill} | _POINT})
    if not many:
        words = {"type": "text", "dx": 9, "dy": -9, "align": "left", "color": "currentColor"}
        drawn.append({"mark": words, "encoding": {"text": {"field": "name"}}})
    data: Spec = {"data": {"name": "points"}, "encoding": axes, "layer": drawn}
    return {"$schema": SCHEMA, "width": "container", "height": 420, "autosize": _FIT, **data}


def _axis(field: str, title: str) -> Spec:
    return {"field": field, "type": "quantitative", "title": title}


def _interval(axis: str, encoding: Spec, mark: Spec, shown: Spec) -> Spec:
    """Draw the intervals along one axis, where there are any."""
    ends = {axis: encoding | {"field": f"{axis}Low"}, f"{axis}2": {"field": f"{axis}High"}}
    known = [{"filter": f"isValid(datum.{axis}Low)"}]
    return {"transform": known, "mark": mark, "encoding": ends | shown}


_TOLD = (
    ("name", "configuration"),
    ("label", "settings"),
    ("xText", "speed"),
    ("yText", "cost"),
    ("trust", "cautions"),
    ("dominated", "dominated by"),
)
_POINT: Spec = {
    "opacity": {"condition": {"test": "datum.dominated", "value": 0.45}, "value": 1},
    "tooltip": [{"field": name, "title": title} for name, title in _TOLD],
}
_HOLLOW: Spec = {"condition": {"test": "datum.caution", "value": "Canvas"}}
_COLOUR: Spec = {
    "field": "series",
    "type": "nominal",
    "legend": {"orient": "bottom", "title": None, "columns": 1, "labelLimit": 340},
}


def speed_title(across: str) -> str:
    """Say what the x axis is, with the figure that it is made from."""
    if across.startswith(TPOT.name):
        return f"tokens/s per user: 1000 / {FIGURES[across].title}"
    return _title(across)


def _title(name: str) -> str:
    return f"{FIGURES[name].title}, {FIGURES[name].unit}"


def differences(*, factor: bool) -> Spec:
    """Draw each configuration against the best, with simultaneous intervals.

    The script of the page adds the height, which follows from the number of rows.

    Args:
        factor: Whether as factors on a log scale, not as percentages.
    """
    x: Spec = {"type": "quantitative"}
    x |= {"title": "times as much" if factor else "difference, %"}
    x |= {"scale": {"type": "log"} if factor else {"zero": True}}
    colour = {"condition": {"test": "datum.shown", "value": "#d1603d"}, "value": "#8a8f98"}
    return {
        "$schema": SCHEMA,
        "width": "container",
        "autosize": _FIT,
        "data": {"name": "differences"},
        "encoding": {
            "y": {
                "field": "name",
                "type": "nominal",
                "sort": None,
                "title": None,
                "axis": {"labelLimit": 300},
            },
            "color": colour,
        },
        "layer": [
            {"mark": {"type": "rule", "strokeDash": [4, 3]}, "encoding": _none(factor=factor)},
            {
                "mark": {"type": "rule", "strokeWidth": 2},
                "encoding": {"x": x | {"field": "low"}, "x2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 70},
                "encoding": {
                    "x": x | {"field": "ratio"},
                    "tooltip": [{"field": name} for name in ("name", "ratio", "low", "high")],
                },
            },
        ],
    }


def _none(*, factor: bool) -> Spec:
    """Mark where there is no difference."""
    at = {"datum": 1 if factor else 0, "type": "quantitative"}
    return {"x": at, "y": None, "color": {"value": "#8a8f98"}}
