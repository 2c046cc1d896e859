"""A result that was changed after it was written is noticed, wherever and however."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.domain.results import ExperimentResult, TrustReason
from llenergymeasure.domain.samples import Window, WindowReadings
from llenergymeasure.exceptions import LLEMError, NotUnderstoodError
from llenergymeasure.results.contradictions import contradictions
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.results.persistence import DirectoryRepository
from tests.support.edits import Counts, Edit, edits, other_bytes, other_digits, rewrite, unsealed
from tests.support.make_result import (
    REQUESTS,
    T0_NS,
    make_failed_sample,
    make_process,
    make_readings,
    make_result,
    make_sample,
    make_trust,
)
from tests.support.samples import EXHAUSTIVE, cuts
from tests.support.scripted_run import run_scripted, scripted_config

STORED = Path(__file__).parents[1] / "data" / "stored_2.0"
SOME = pytest.mark.parametrize(
    "most", [pytest.param(120, id="some"), pytest.param(10**9, id="every", marks=EXHAUSTIVE)]
)
FREE = ("resolved.backend", "resolved.dataset.provenance", "environment.", "config.", "thermal.")
"""What takes any name or value."""

WINDOWS = (WindowReadings("measure", Window(T0_NS, T0_NS + 3_200_000_000), make_readings()),)


@pytest.fixture
def directory(tmp_path: Path) -> ExperimentDirectory:
    """Leave an experiment as a worker does, with its raw samples."""
    made = ExperimentDirectory(tmp_path)
    save(
        made, make_result(trust=make_trust("window_short"), measurement_warnings=("window_short",))
    )
    return made


def save(directory: ExperimentDirectory, result: ExperimentResult) -> ExperimentResult:
    repository = DirectoryRepository(directory)
    share = make_process(prompts=range(3))
    files = repository.save_samples([share], WINDOWS)
    whole = result.model_copy(update={"files": files})
    directory.config.write_text("{}")
    repository.save_result(whole)
    return whole


def refusal(path: Path) -> LLEMError:
    with pytest.raises(LLEMError) as caught:
        ExperimentResult.from_json(path)
    assert str(path) in caught.value.message
    return caught.value


def taken(path: Path, text: str, whole: ExperimentResult) -> str:
    """Tell how a changed file is taken."""
    path.write_text(text, encoding="utf-8")
    try:
        found = ExperimentResult.from_json(path)
    except LLEMError:
        return "noticed"
    return "harmless" if found == whole else "believed"


def sampled(every: list[Any], most: int) -> list[Any]:
    return [every[index] for index in cuts(len(every), most)]


@SOME
def test_no_edit_of_a_result_is_believed(directory: ExperimentDirectory, most: int) -> None:
    whole = ExperimentResult.from_json(directory.root)
    every = list(edits(json.loads(directory.result.read_text())))
    assert len({edit.kind for edit in every}) >= 15
    counts, believed = Counts(), []
    for edit in sampled(every, most):
        how = taken(directory.result, edit.text, whole)
        counts[how] += 1
        if how == "believed":
            believed.append((edit.kind, edit.place))
    print(f"edits of a result: {counts}")
    assert not believed
    assert counts["harmless"] == 0, "each of them says something else"


@SOME
def test_no_other_digit_in_a_result_is_believed(directory: ExperimentDirectory, most: int) -> None:
    whole = ExperimentResult.from_json(directory.root)
    every = list(other_digits(directory.result.read_bytes()))
    counts = Counts(
        taken(directory.result, content.decode(), whole) for _, content in sampled(every, most)
    )
    print(f"digits of a result: {counts}")
    assert counts["believed"] == 0
    assert counts["noticed"] > 0.99 * counts.total(), "but those beyond what a number holds"


@SOME
def test_no_damaged_byte_of_any_file_is_believed(directory: ExperimentDirectory, most: int) -> None:
    whole = ExperimentResult.from_json(directory.root)
    counts = Counts()
    for file in (directory.result, directory.requests, directory.timeseries):
        content = file.read_bytes()
        for damaged in other_bytes(content, min(most // 3, 2000)):
            file.write_bytes(damaged)
            try:
                found = ExperimentResult.from_json(directory.root)
            except LLEMError:
                counts["noticed"] += 1
            else:
                told = "samples_changed" in found.measurement_warnings
                counts["noticed" if told else "harmless" if found == whole else "believed"] += 1
        file.write_bytes(content)
    print(f"damaged bytes: {counts}")
    assert counts["believed"] == 0
    assert ExperimentResult.from_json(directory.root) == whole


def test_a_file_that_is_laid_out_otherwise_says_the_same(directory: ExperimentDirectory) -> None:
    whole = ExperimentResult.from_json(directory.root)
    data = json.loads(directory.result.read_text())
    for text in (json.dumps(data), json.dumps(data, indent=7, sort_keys=True)):
        assert taken(directory.result, text, whole) == "harmless"


def test_a_changed_figure_is_told_with_the_remedy(directory: ExperimentDirectory) -> None:
    text = directory.result.read_text()
    directory.result.write_text(text.replace('"energy_total_j": 812.4', '"energy_total_j": 8124.0'))
    told = refusal(directory.result).message
    assert "was changed since it was written: what it holds has the checksum" in told
    assert "Put the file back as it was" in told


def test_a_result_without_its_checksum_is_not_believed(directory: ExperimentDirectory) -> None:
    data = json.loads(directory.result.read_text())
    del data["sha256"]
    directory.result.write_text(json.dumps(data))
    assert "has lost its checksum (sha256)" in refusal(directory.result).message


def test_a_key_that_stands_there_twice_is_named(directory: ExperimentDirectory) -> None:
    text = directory.result.read_text().replace('"place"', '"ttft_ms": 1.0,\n  "place"', 1)
    directory.result.write_text(text)
    assert "the key 'ttft_ms' stands there twice" in refusal(directory.result).message


# Raw samples --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda path: path.unlink(), "requests.parquet is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "was changed or cut short"),
        (lambda path: path.write_bytes(b""), "was changed or cut short"),
    ],
)
def test_raw_samples_that_are_gone_or_changed_are_a_finding(
    directory: ExperimentDirectory, change: Callable[[Path], object], says: str
) -> None:
    whole = ExperimentResult.from_json(directory.root)
    change(directory.requests)
    found = ExperimentResult.from_json(directory.root)
    assert found.trust.verdict == "caution"
    assert found.measurement_warnings == (*whole.measurement_warnings, "samples_changed")
    assert says in found.trust.reasons[-1].detail
    assert says in " ".join(found.summary().split())
    assert found.energy == whole.energy, "no figure is wrong for that"
    assert not list(contradictions(found))


def test_the_finding_takes_its_place_among_the_others(directory: ExperimentDirectory) -> None:
    info = TrustReason(code="part_time", level="info", detail="d", remedy="r")
    trust = make_trust().model_copy(update={"reasons": (info,)})
    save(directory, make_result(trust=trust))
    directory.timeseries.unlink()
    found = ExperimentResult.from_json(directory.root)
    assert [reason.code for reason in found.trust.reasons] == ["samples_changed", "part_time"]
    found.to_json(directory.result)
    assert ExperimentResult.from_json(directory.root) == found, "it is told once"


def test_a_copy_of_a_result_elsewhere_has_no_samples_to_miss(
    directory: ExperimentDirectory, tmp_path: Path
) -> None:
    copied = tmp_path / "copies" / "of-bs8.json"
    copied.parent.mkdir()
    shutil.copy(directory.result, copied)
    assert ExperimentResult.from_json(copied) == ExperimentResult.from_json(directory.root)


# What an earlier version wrote, without a checksum ------------------------------------------------


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    for name in ("result.json", "requests.parquet", "config.json"):
        shutil.copy(STORED / "experiment" / name, tmp_path)
    return tmp_path / "result.json"


def put(*path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put("tokens_per_second", value="12.5"), "tokens_per_second: str where there must be"),
        (put("energy_total_j", value=1e4), "energy_total_j: 10000.0, and energy.total_j is"),
        (put("throughput", "passes", value=True), "throughput.passes: bool where there must be"),
        (put("throughput", "output_tokens", value=-5), "throughput.output_tokens: -5 is negative"),
        (put("throughput", "output_tokens", value=10**30), "larger than any figure can be"),
        (put("throughput", "output_tokens", value=10**400), "larger than any figure can be"),
        (put("energy", "total_j", value=1e308), "larger than any figure can be"),
        (put("energy", "source", value="none"), "and no source was read"),
        (put("energy", "kind", value="modelled"), "energy.kind: modelled, and its components are"),
        (put("trust", "reasons", value=[]), "trust.verdict: caution, and its reasons say ok"),
        (put("trust", "verdict", value="ok"), "trust.verdict: ok, and its reasons say caution"),
        (put("measurement_warnings", value=[]), "measurement_warnings: not those of trust"),
        (put("latency", "ttft_ms", "p99", value=1e-9), "its percentiles do not rise"),
        (put("throughput", "requests_failed", value=3), "requests ended"),
        (put("window", "pass_seconds", value=[]), "throughput.passes"),
        (put("energies", value={}), "energies: there is no such field"),
        (put("resolved", "model", "name", value="other"), "resolved.model.name"),
    ],
)
def test_a_result_without_a_checksum_is_held_against_itself(
    earlier: Path, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    data = json.loads(earlier.read_text())
    change(data)
    earlier.write_text(json.dumps(data))
    assert says in refusal(earlier).message


def test_a_result_without_a_checksum_is_held_against_its_requests(earlier: Path) -> None:
    beside = ExperimentDirectory(earlier.parent)
    share = make_process(requests=(make_sample(0), make_sample(1), make_failed_sample(2)))
    DirectoryRepository(beside).save_samples([share], WINDOWS)
    told = refusal(earlier).message
    assert "throughput.requests_completed: 72 in the result, 2 in requests.parquet" in told
    assert "throughput.requests_failed: 0 in the result, 1 in requests.parquet" in told
    beside.requests.write_bytes(b"PAR1")
    found = ExperimentResult.from_json(earlier)
    assert "samples_changed" in found.measurement_warnings, "and no figure is wrong for that"


def test_what_users_wrote_may_be_of_any_size(directory: ExperimentDirectory) -> None:
    config = ExperimentConfig(
        model="m", n=REQUESTS, passthrough_kwargs={"seed": 10**30, "huge": -1e308}
    )
    save(directory, make_result(config=config))
    unsealed(directory.result, lambda data: data["resolved"]["backend"].update(big=10**40), "2.0")
    directory.requests.unlink()
    assert ExperimentResult.from_json(directory.root).config == config


@SOME
def test_edits_of_an_earlier_result_are_counted(earlier: Path, most: int) -> None:
    """Nothing tells but what a result says twice, so that some are believed."""
    whole = ExperimentResult.from_json(earlier)
    every = list(edits(json.loads(earlier.read_text())))
    counts, believed = Counts(), list[Edit]()
    for edit in sampled(every, most):
        how = taken(earlier, edit.text, whole)
        counts[how] += 1
        believed += [edit] if how == "believed" else []
    print(f"edits of a result without a checksum: {counts}")
    sure = ("10^30", "10^400", "said twice", "text in place of a number", "renamed")
    assert [
        (edit.kind, edit.place)
        for edit in believed
        if edit.kind in sure and not edit.place.startswith(FREE)
    ] == []
    headlines = [edit for edit in every if is_headline(edit)]
    assert {taken(earlier, edit.text, whole) for edit in sampled(headlines, most)} == {"noticed"}


def is_headline(edit: Edit) -> bool:
    return edit.place in {
        "energy_total_j", "energy_per_output_token_j", "energy_adjusted_j", "tokens_per_second",
        "ttft_ms", "tpot_ms", "peak_memory_mb", "energy.total_j", "throughput.output_tokens",
        "throughput.requests_completed", "throughput.input_tokens", "trust.verdict",
        "measurement_warnings",
    }  # fmt: skip


def test_every_stored_result_contradicts_nothing() -> None:
    found = sorted(STORED.rglob("result.json"))
    assert len(found) == 13
    for path in found:
        assert list(contradictions(ExperimentResult.from_json(path))) == []


def test_what_is_measured_contradicts_nothing(tmp_path: Path) -> None:
    config = scripted_config(energy_backend="none", baseline={"enabled": False})
    result = run_scripted(tmp_path, config).result
    assert list(contradictions(result)) == []


# What is not understood ---------------------------------------------------------------------------


def test_a_result_of_a_later_version_and_one_that_cannot_be_read_are_not_understood(
    directory: ExperimentDirectory,
) -> None:
    rewrite(directory.result, lambda data: data.update(schema_version="3.0"))
    told = refusal(directory.result)
    assert isinstance(told, NotUnderstoodError)
    assert (
        "has schema 3.0; this version of llenergymeasure reads up to 2.1. Upgrade" in told.message
    )
    directory.result.unlink()
    directory.result.symlink_to(directory.result.name)  # a circle
    told = refusal(directory.result)
    assert isinstance(told, NotUnderstoodError)
    assert "cannot be read" in told.message
