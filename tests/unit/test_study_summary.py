"""What a user reads when a study is over."""

from __future__ import annotations

import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.domain.environment import DeviceState
from llenergymeasure.domain.results import Skipped, StudyResult
from llenergymeasure.report import format as fmt
from tests.support.make_result import make_energy
from tests.support.make_study import make_configs, make_failure, make_run, make_study

NOISE = {1: 0.99, 2: 1.0, 3: 1.012}
LEVEL = {1: 1.30, 2: 1.0, 3: 1.004}


def made(config: ExperimentConfig, number: int, cycle: int):
    factor = LEVEL[number] * (NOISE[cycle] + 0.003 * ((number * cycle) % 3))
    return make_run(config, 800 * factor, 200 / factor)


def three(**changes) -> StudyResult:
    return make_study(made, make_configs([1, 8, 16]), **changes)


def rows(text: str, title: str) -> list[str]:
    """Give the rows of one ranking."""
    lines = text.partition(title)[2].splitlines()[1:]
    return [line for line in lines[: lines.index("")] if "#" in line]


EXPECTED = """\
Study batch-sizes: 3 configurations, 3 cycles, balanced order
  9 experiments ran
  m; mixed-1k, 20 prompts
  on NVIDIA H200 (GPU-5f4dcc3b-0000-4000-8000-000000000001)
  with llenergymeasure 2.0.0, python 3.12.1, torch 2.8.0
  energy measured by nvml; 2026-02-18 14:31

Energy per output token, lowest first                 J  against #2
     #2 batch_size=8                       1.25 ± 0.02
=    #3 batch_size=16                      1.26 ± 0.03  +0.1 % (-0.6 to +0.8)
     #1 batch_size=1                       1.63 ± 0.04  +30.0 % (+29.1 to +30.9)
  A difference of 1.2 % shows in 4 of 5 studies; with 5 cycles, 0.73 % does.

Throughput, highest first                     tokens/s  against #2
     #2 batch_size=8                           199 ± 4
=    #3 batch_size=16                          199 ± 5  -0.1 % (-0.8 to +0.6)
     #1 batch_size=1                           153 ± 4  -23.1 % (-23.6 to -22.5)
  A difference of 1.2 % shows in 4 of 5 studies; with 5 cycles, 0.73 % does.

             TTFT p50, ms      TTFT p95, ms      TPOT p50, ms      TPOT p95, ms
     #1              48.2              57.8              12.3              14.8
     #2              48.2              57.8              12.3              14.8
     #3              48.2              57.8              12.3              14.8
              ITL p95, ms       E2E p50, ms       E2E p95, ms  peak memory, MiB
     #1              14.5             1,210             1,452            16,500
     #2              14.5             1,210             1,452            16,500
     #3              14.5             1,210             1,452            16,500

± is the 95 % interval of the mean over cycles; a figure without it has fewer
  than three, or never changed.
The last column compares with the configuration named there; its intervals hold
  together. = marks what is not shown to differ: that is no proof of being
  equal.

Trust        ok: nothing speaks against these figures"""


def test_the_table_reads_as_documented():
    assert three().summary() == EXPECTED


def test_energy_is_ranked_from_the_lowest_and_throughput_from_the_highest():
    text = three().summary()
    energy = [row.split("#")[1][0] for row in rows(text, "Energy per output token")]
    throughput = [row.split("#")[1][0] for row in rows(text, "Throughput")]
    assert energy == throughput == ["2", "3", "1"]


def test_rows_are_in_the_order_of_the_last_column_where_means_say_otherwise():
    def run(config, number, cycle):
        if (number, cycle) == (1, 3):  # the dear cycle, which its mean goes without
            return make_failure(config)
        energy_j = (800, 800, 1600)[cycle - 1] * NOISE[cycle] * (1.05 if number == 1 else 1.0)
        return make_run(config, energy_j)

    study = make_study(run, make_configs([1, 8]))
    best, other = rows(study.summary(), "Energy per output token")
    assert "#2" in best
    assert "+5.000 %" in other
    means = {one.id: one.figures["energy_total_j"].mean for one in study.configurations}
    assert means[1] < means[2]


def test_what_is_not_shown_to_differ_is_marked_and_what_is_is_not():
    first, second, third = rows(three().summary(), "Energy per output token")
    assert first.startswith(" ")
    assert second.startswith("=")
    assert third.startswith(" ")
    assert "+30.0 % (" in third


def test_the_smallest_difference_that_would_have_shown_is_told():
    text = three().summary()
    assert "shows in 4 of 5 studies; with 5 cycles, " in text


def test_without_energy_only_throughput_is_ranked():
    text = make_study(lambda config, number, cycle: make_run(config, None, 200 + cycle)).summary()
    assert "Energy" not in text
    assert "Throughput, highest first" in text


def test_failures_skips_and_invalid_results_are_told_with_their_reasons():
    def run(config, number, cycle):
        return make_failure(config) if (number, cycle) == (1, 1) else made(config, number, cycle)

    skipped = [Skipped(config={}, reason="fp8 is not supported by pytorch")] * 2
    text = make_study(run, skipped=skipped).summary()
    assert "5 experiments ran, 1 failed, 2 combinations skipped" in text
    failed = (
        "Failed 1 x backend_error in load: out of memory\n    #1 batch_size=1, 1 x\n    in 0001"
    )
    assert failed in text
    assert "Skipped 2 x fp8 is not supported by pytorch" in text


def test_a_single_cycle_says_that_it_has_no_intervals_and_how_to_get_them():
    text = three(cycles=1).summary()
    assert "Means have no intervals: those need three cycles" in text
    assert "±" not in text
    assert "against #" not in text


def test_a_study_broken_off_is_not_told_to_add_the_cycles_that_it_lacks():
    text = three(cycles=1).model_copy(update={"missing": 6}).summary()
    assert "Means have no intervals: those need three cycles." in text
    assert "--cycles" not in text


def test_two_cycles_have_intervals_of_comparisons_and_say_that_means_have_none():
    text = three(cycles=2).summary()
    assert "against #" in text
    assert "Means have no intervals: those need three cycles" in text


def test_rows_of_two_boards_are_told_apart_and_compared_once():
    boards = {1: "GPU-a", 2: "GPU-b"}

    def run(config, number, cycle):
        board = boards[1 if cycle < 3 else 2]
        device = DeviceState(device=board)
        result = made(config, number, 1 + (cycle - 1) % 3)
        return result.model_copy(update={"device_state": (device,), "energy": make_energy(None)})

    study = make_study(run, make_configs([1, 8]), cycles=4)
    assert {one.devices for one in study.configurations} == {("GPU-a",), ("GPU-b",)}
    text = study.summary()
    table = rows(text, "Throughput")
    assert sorted(row.split()[0] for row in table) == ["#1@1", "#1@2", "#2@1", "#2@2"]
    assert sum("(" in row for row in table) == 1
    assert "@1 is GPU-a." in text
    assert "@2 is GPU-b." in text
    assert max(map(len, text.splitlines())) <= 80


def test_every_reason_of_failing_names_its_configurations_and_counts_the_many():
    study = make_study(lambda config, *_: make_failure(config), make_configs(range(1, 9)))
    text = study.summary()
    assert "Failed 24 x backend_error in load: out of memory\n    #1 batch_size=1, 3 x\n" in text
    assert "    and 3 more configurations: see study_summary.json\n    first in 0001" in text


def test_no_line_is_wider_than_80_columns():
    long = ExperimentConfig(
        model="m" * 70, n=20, precision="fp16", pytorch={"attn_implementation": "flash_attention_3"}
    )
    configs = (*make_configs([1, 8]), long)
    text = make_study(made, configs).summary()
    assert max(map(len, text.splitlines())) <= 80


def test_of_many_configurations_the_first_are_shown_and_the_rest_counted():
    configs = make_configs(range(1, 31))
    text = make_study(
        lambda config, number, cycle: make_run(config, (800 + number) * NOISE[cycle]), configs
    ).summary()
    assert len(rows(text, "Energy per output token")) == 20
    assert "and 10 more: see study_summary.json" in text


def test_a_column_and_the_sentence_below_it_have_one_notation():
    def run(config, number, cycle):
        factor = {1: 1.0, 2: 1.1, 3: 4.0}[number] * NOISE[cycle]
        return make_run(config, 800 * factor * (1 + 0.002 * ((number * cycle) % 3)), 200 / 1.1)

    text = make_study(run, make_configs([1, 8, 16])).summary()
    energy = rows(text, "Energy per output token")
    assert [row.rpartition("  ")[2][:2] for row in energy[1:]] == ["x ", "x "]
    sentence = text.partition("  A difference of ")[2]
    assert sentence.startswith("a factor of 1.0")
    assert "with 5 cycles, a factor of 1.0" in " ".join(sentence.split())
    assert "%" in rows(text, "Throughput")[1], "each column for itself"


def test_every_table_of_many_configurations_shows_the_same_rows():
    def run(config, number, cycle):
        return make_run(config, (800 + number) * NOISE[cycle], (200 + number) * NOISE[cycle])

    text = make_study(run, make_configs(range(1, 31))).summary()
    figures = text.partition("TTFT p50")[2].partition("\n\n")[0].splitlines()[1:]
    tables = (rows(text, "Energy per"), rows(text, "Throughput"), figures)
    shown = [{int(row.split("#")[1].split()[0]) for row in lines if "#" in row} for lines in tables]
    assert shown[0] == shown[1] == shown[2] == {*range(1, 20), 30}, "the fastest is there as well"
    assert text.count("and 10 more: see study_summary.json") == 3


def test_control_characters_of_a_message_do_not_reach_the_terminal():
    text = make_study(lambda config, *_: make_failure(config, "bad \x1b[31m news")).summary()
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("ratio", "low", "high", "said"),
    [
        (1.042, 1.011, 1.073, "+4.2 % (+1.1 to +7.3)"),
        (0.998, 0.981, 1.016, "-0.2 % (-1.9 to +1.6)"),
        (1.30, 1.27, 1.33, "+30 % (+27 to +33)"),
        (3.1, 2.9, 3.3, "x 3.1 (2.9 to 3.3)"),
        (0.36, 0.021, 6.2, "x 0.36 (0.021 to 6.2)"),
        (2.38, 1.02, 5.7, "x 2.38 (1.02 to 5.70)"),
        (1.18, 0.1, 14.4, "x 1.2 (0.10 to 14)"),
        (0.82, 0.66, 0.996, "-18.0 % (-34.0 to -0.4)"),
        (1.005, 1.0003, 1.0094, "+0.50 % (+0.03 to +0.94)"),
        (0.998, 0.9961, 0.99999, "-0.200 % (-0.390 to -0.001)"),
        (1.2, 1 + 1e-7, 1.4, "+20.00000 % (+0.00001 to +40.00000)"),
        (2.2, 1.004, 4.5, "x 2.200 (1.004 to 4.500)"),
        (2.1, 1.04, 3.9, "x 2.10 (1.04 to 3.90)"),
        (0.45, 0.22, 0.996, "x 0.450 (0.220 to 0.996)"),
        (1.0, 0.9996, 1.009, "+0.0 % (-0.0 to +0.9)"),
    ],
)
def test_a_ratio_is_told_as_a_change_or_a_factor(ratio, low, high, said):
    assert fmt.change(ratio, low, high, factor=fmt.is_factor(ratio, low, high)) == said


@pytest.mark.parametrize(
    ("ratio", "low", "high", "said"),
    [
        (1.042, 1.011, 1.073, "x 1.04 (1.01 to 1.07)"),
        (1.042, 1.002, 1.073, "x 1.042 (1.002 to 1.073)"),
        (0.7, 0.69, 0.71, "x 0.700 (0.690 to 0.710)"),
        (1.0, 1.0, 1.0, "x 1.0 (1.0 to 1.0)"),
    ],
)
def test_beside_factors_a_small_change_is_told_as_one(ratio, low, high, said):
    assert fmt.change(ratio, low, high, factor=True) == said


@pytest.mark.parametrize(
    ("value", "half", "said"),
    [(812.4, 6.2, "812 ± 6"), (0.41234, 0.0132, "0.412 ± 0.013"), (12.34, None, "12.3")],
)
def test_a_figure_in_a_column_has_the_digits_of_its_interval(value, half, said):
    assert fmt.plain_interval(value, half) == said


def test_a_note_that_holds_for_every_figure_is_told_once():
    text = three(cycles=1).summary()
    assert text.count("too few repeats") == 1


def test_a_configuration_without_a_result_is_not_passed_over_in_the_count():
    def made_or_failed(config, number, cycle):
        return make_failure(config) if number == 2 else made(config, number, cycle)

    text = make_study(made_or_failed, make_configs([1, 8, 16])).summary()
    assert text.startswith("Study batch-sizes: 2 of 3 configurations, ")


def test_a_percentage_stays_on_the_line_of_its_figure():
    noise = {1: 0.9993, 2: 1.0, 3: 1.0008}
    study = make_study(
        lambda config, number, cycle: make_run(
            config, 800 * number * (noise[cycle] + 0.0001 * ((number * cycle) % 3)), 200
        ),
        make_configs([1, 8]),
    )
    assert not [line for line in study.summary().splitlines() if line.strip().startswith("%")]
