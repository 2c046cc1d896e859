"""A result as one page for a browser: what is in it, and what cannot get out of it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from random import Random

import pytest
from scripts.vendor_js import PACKAGES, VENDOR

from llenergymeasure.domain.results import StudyResult
from llenergymeasure.report.page import page
from llenergymeasure.report.page.html import json_in_html
from tests.support.make_result import (
    make_distribution,
    make_latency,
    make_result,
    make_trust,
    make_window,
)
from tests.support.make_study import make_configs, make_failure, make_run, make_study


def of_batches(
    count: int = 4, cycles: int = 3, energy: bool = True, spread: float = 0.01, fails: bool = False
) -> StudyResult:
    """Make a study in which a larger batch is slower and cheaper; a third rest on cautions."""

    def run(config, number, cycle):
        if fails and number == count:
            return make_failure(config, message="</script><script>alert(1)</script>")
        random = Random(100 * number + cycle)
        scale = (1 + number / count) * (1 + random.gauss(0, spread))
        return make_run(
            config,
            800 / scale if energy else None,
            200 * scale,
            latency=make_latency(tpot_ms=make_distribution(10 * scale)),
            trust=make_trust(*(("window_short",) if number % 3 == 0 else ())),
            window=make_window(1_000_000 * number + cycle),
        )

    return make_study(run, make_configs(range(1, count + 1)), cycles)


def data_of(text: str) -> dict:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(found)


def test_the_same_study_gives_the_same_bytes() -> None:
    assert page(of_batches()) == page(of_batches())


def test_every_figure_on_the_page_is_the_stored_one() -> None:
    study = of_batches()
    told = data_of(page(study))["figures"]
    assert told.keys() == {name for one in study.configurations for name in one.figures}
    for place, one in enumerate(study.configurations):
        for name, figure in one.figures.items():
            assert told[name]["mean"][place] == pytest.approx(figure.mean, rel=1e-6)
            ends = [told[name][end][place] for end in ("low", "high")]
            stored = figure.interval95 or (None, None)
            assert ends == [None if e is None else pytest.approx(e, rel=1e-6) for e in stored]


def test_differences_are_those_of_the_study_turned_to_the_best() -> None:
    study = of_batches()
    first = data_of(page(study))["differences"][0]
    assert first["reference"] == "#4"
    pairs = {(c.a, c.b): c for c in study.comparisons if c.metric == "energy_per_output_token_j"}
    for name, ratio, low, high, shown in first["rows"]:
        pair = pairs[int(name[1:]), 4]
        assert (ratio, low, high) == pytest.approx((pair.ratio, *pair.interval95), rel=1e-6)
        assert shown == (pair.verdict != "no_difference_shown")


def test_only_what_is_shown_better_both_ways_dominates() -> None:
    # A larger batch is cheaper and slower here, so nothing is better both ways.
    assert data_of(page(of_batches()))["dominated"] == [None] * 4

    def run(config, number, cycle):
        scale = number * (1 + Random(100 * number + cycle).gauss(0, 0.005))
        latency = make_latency(tpot_ms=make_distribution(10 * scale))
        window = make_window(1_000_000 * number + cycle)
        return make_run(config, 800 * scale, latency=latency, window=window)

    assert data_of(page(make_study(run)))["dominated"] == [None, "#1"]
    assert data_of(page(make_study(run, cycles=1)))["dominated"] == [None, None]


def test_a_line_goes_over_batch_sizes_and_cautions_are_named() -> None:
    told = data_of(page(of_batches()))
    assert told["order"] == [1, 2, 3, 4]
    assert len(told["seriesNames"]) == 1
    assert told["trust"] == [[], [], ["window_short"], []]


def test_without_energy_throughput_is_drawn_and_nobody_reads_joules() -> None:
    told = data_of(page(of_batches(energy=False)))
    assert told["plane"]["y"] == "tokens_per_second"
    assert not [name for name in told["figures"] if "energy" in name]


def test_text_from_a_result_ends_neither_script_nor_element() -> None:
    text = page(of_batches(fails=True))
    assert "alert(1)" in text
    assert "<script>alert" not in text
    named = page(make_result(trust=make_trust("<img src=x>")))
    assert "<img" not in named
    assert "&lt;img src=x&gt;" in named
    assert json.loads(json_in_html({"a": "</script>&"})) == {"a": "</script>&"}
    assert "<" not in json_in_html({"a": "</script>"})


def test_a_page_may_fetch_nothing_and_runs_only_its_own_scripts() -> None:
    text = page(of_batches())
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', text)
    assert policy.startswith("default-src &#x27;none&#x27;; script-src &#x27;sha256-")
    assert "unsafe" not in policy
    assert text.count("<script>") == policy.split("style-src")[0].count("sha256-")
    assert "sourceMappingURL" not in text


def test_an_experiment_and_a_study_of_one_are_pages_of_words_without_scripts() -> None:
    for result in (make_result(), of_batches(count=1)):
        text = page(result)
        assert "<script>" not in text
        assert "mJ" in text or " J" in text


def of_thousand() -> StudyResult:
    """Make a study of a thousand configurations out of one of four."""
    four = of_batches()
    rows = [four.configurations[i % 4].model_copy(update={"id": i + 1}) for i in range(1000)]
    pairs = [
        pair.model_copy(update={"a": row.id, "b": 4})
        for pair in four.comparisons
        if (pair.a, pair.b) == (1, 2)
        for row in rows
        if row.id != 4
    ]
    return four.model_copy(update={"configurations": tuple(rows), "comparisons": tuple(pairs)})


def test_a_thousand_configurations_fit_into_a_megabyte_and_a_half() -> None:
    text = page(of_thousand())
    assert len(data_of(text)["names"]) == 1000
    assert len(text.encode()) < 1_500_000


def test_libraries_are_the_ones_whose_versions_are_noted() -> None:
    for package in PACKAGES:
        content = (VENDOR / f"{package.name}.min.js").read_bytes()
        assert hashlib.sha256(content).hexdigest() == package.sha256
        assert (VENDOR / f"{package.name}.LICENSE").exists()


def test_a_result_writes_its_page(tmp_path: Path) -> None:
    for result in (make_result(), of_batches()):
        assert result.to_html(tmp_path / "page.html") == page(result)
        assert (tmp_path / "page.html").read_text("utf-8") == page(result)
