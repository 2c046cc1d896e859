"""Datasets: what is read, what is refused, and in which words."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from llenergymeasure.config.models import SyntheticDataset, SyntheticSpec
from llenergymeasure.datasets import aienergyscore
from llenergymeasure.datasets.loader import dataset_problems, load_dataset
from llenergymeasure.domain.prompts import Prompt
from llenergymeasure.exceptions import PreFlightError

BUILTIN = Path(aienergyscore.__file__).parent / "builtin" / "mixed-1k.jsonl"
SHARED = Path(__file__).parents[2].parent / "shared/data/aienergyscore.jsonl"
IDS = tuple(range(10, 500))


def write(path: Path, *lines: object) -> str:
    text = (line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    path.write_bytes(b"\n".join(text) + b"\n")
    return str(path)


def synthetic(**shape: int) -> SyntheticDataset:
    return SyntheticDataset(synthetic=SyntheticSpec(**shape))


def problem_of(path: str, n: int = 1, cache: Path = Path("unused")) -> str:
    problems = dataset_problems(path, n, cache)
    assert len(problems) == 1
    return str(problems[0])


def test_the_first_prompts_are_used_in_file_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"prompt": "één"}, {"prompt": "b", "max_new_tokens": 7})
    dataset = load_dataset(path, 1, cache_dir=tmp_path)
    assert dataset.prompts == (Prompt(text="één"),)
    assert (dataset.name, dataset.size, dataset.provenance) == (path, 2, {})
    assert load_dataset(path, 2, cache_dir=tmp_path).prompts[1] == Prompt("b", max_new_tokens=7)


def test_the_hash_covers_every_prompt_whatever_n_and_spelling(tmp_path: Path) -> None:
    escaped = write(tmp_path / "a.jsonl", {"prompt": "é"}, {"prompt": "b", "max_new_tokens": 7})
    plain = write(
        tmp_path / "b.jsonl",
        {"_provenance": "me"},
        '{ "id": 3, "prompt":  "é" }'.encode(),
        b"",
        b'{"max_new_tokens": 7, "prompt": "b"}',
    )
    expected = hashlib.sha256('{"prompt":"é"}\n{"prompt":"b","max_new_tokens":7}\n'.encode())
    for path, n in ((escaped, 1), (escaped, 2), (plain, 1)):
        assert load_dataset(path, n, cache_dir=tmp_path).sha256 == expected.hexdigest()


def test_an_own_max_new_tokens_changes_the_hash(tmp_path: Path) -> None:
    one = write(tmp_path / "a.jsonl", {"prompt": "a"})
    two = write(tmp_path / "b.jsonl", {"prompt": "a", "max_new_tokens": 7})
    hashes = {load_dataset(path, 1, cache_dir=tmp_path).sha256 for path in (one, two)}
    assert len(hashes) == 2


def test_a_header_is_provenance_and_no_prompt(tmp_path: Path) -> None:
    header = {"_provenance": "a corpus", "licence": "MIT"}
    path = write(tmp_path / "a.jsonl", header, {"prompt": "a"})
    dataset = load_dataset(path, 1, cache_dir=tmp_path)
    assert (dataset.provenance, dataset.size) == (header, 1)


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"prompt": "a"}')
    assert load_dataset(path, 1, cache_dir=tmp_path).prompts == (Prompt("a"),)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"prompt": "a"', "not JSON"),
        (b'{"prompt": "\xff"}', "not UTF-8"),
        (b'["a"]', "not an object"),
        (b"{}", "'prompt' is missing"),
        (b'{"prompt": null}', "'prompt' is missing"),
        (b'{"prompt": ""}', "'prompt' is empty"),
        (b'{"prompt": ["a"]}', "'prompt' is not a string"),
        (rb'{"prompt": "\ud800"}', "surrogate"),
        (b'{"_provenance": "a"}', "a header must be the first line"),
        (b'{"prompt": "a", "max_new_tokens": 0}', "'max_new_tokens' is not a positive integer"),
        (b'{"prompt": "a", "max_new_tokens": true}', "'max_new_tokens' is not a positive integer"),
        (b'{"prompt": "a", "max_new_tokens": 1.5}', "'max_new_tokens' is not a positive integer"),
        (b"[" * 100_000, "not a prompt"),
        (b'{"prompt": "a", "max_new_tokens": ' + b"9" * 5000 + b"}", "not a prompt"),
    ],
)
def test_a_bad_line_is_reported_with_its_number_and_reason(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    path = write(tmp_path / "a.jsonl", {"prompt": "a"}, b"", line, {"prompt": "b"})
    message = problem_of(path)
    assert message.startswith(f"{path}, line 3: ")
    assert reason in message
    with pytest.raises(PreFlightError, match="line 3"):
        load_dataset(path, 1, cache_dir=tmp_path)


def test_every_bad_line_is_reported_up_to_a_bound(tmp_path: Path) -> None:
    few = write(tmp_path / "a.jsonl", b"x", {"prompt": "a"}, b"y")
    assert [p.where for p in dataset_problems(few, 1, tmp_path)] == [
        f"{few}, line 1",
        f"{few}, line 3",
    ]
    many = write(tmp_path / "b.jsonl", *[b"x"] * 1000)
    assert len(dataset_problems(many, 1, tmp_path)) == 10


def test_more_prompts_than_there_are_is_a_problem_that_says_how_many(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"prompt": "a"}, {"prompt": "b"})
    message = problem_of(path, n=3)
    assert message.startswith("n: ")
    assert "3 prompts asked for" in message
    assert "has 2" in message


@pytest.mark.parametrize("content", [b"", b"\n\n", b'{"_provenance": "a"}\n'])
def test_an_empty_dataset_is_a_problem(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    assert "holds no prompts" in problem_of(str(path))


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    assert "No such file" in problem_of(str(tmp_path / "absent.jsonl"))
    (tmp_path / "folder.jsonl").mkdir()
    assert "Is a directory" in problem_of(str(tmp_path / "folder.jsonl"))


def test_an_unknown_name_is_answered_with_the_nearest_and_with_all() -> None:
    message = problem_of("mixed1k")
    assert "did you mean 'mixed-1k'?" in message
    assert ".jsonl" in message
    assert "mixed-1k, aienergyscore" in problem_of("something else")


def test_synthetic_prompts_have_exact_lengths_and_only_ordinary_tokens(tmp_path: Path) -> None:
    spec = synthetic(n=50, input_len=17, output_len=9)
    dataset = load_dataset(spec, 50, cache_dir=tmp_path, ordinary_ids=IDS)
    assert {len(p.token_ids or ()) for p in dataset.prompts} == {17}
    assert {p.max_new_tokens for p in dataset.prompts} == {9}
    drawn = {token for p in dataset.prompts for token in p.token_ids or ()}
    assert drawn <= set(IDS)
    assert len(drawn) > len(IDS) / 2


def test_a_synthetic_prompt_is_the_same_whatever_n_is(tmp_path: Path) -> None:
    def load(used: int, **shape: int) -> tuple[Prompt, ...]:
        spec = synthetic(input_len=33, **shape)
        return load_dataset(spec, used, cache_dir=tmp_path, ordinary_ids=IDS).prompts

    assert load(20)[:5] == load(5) == load(5, n=100)
    assert load(5) != load(5, seed=1)
    assert len(set(load(20))) == 20


def test_the_synthetic_hash_covers_the_whole_dataset(tmp_path: Path) -> None:
    def load(n: int, size: int) -> tuple[int, str]:
        spec = synthetic(n=size, input_len=4)
        dataset = load_dataset(spec, n, cache_dir=tmp_path, ordinary_ids=IDS)
        return dataset.size, dataset.sha256

    assert load(2, 10) == load(10, 10)
    assert load(2, 11) != load(2, 10)


def test_a_synthetic_dataset_that_cannot_be_is_refused(tmp_path: Path) -> None:
    assert "has 3" in str(dataset_problems(synthetic(n=3), 4, tmp_path)[0])
    assert dataset_problems(synthetic(), 4, tmp_path) == []
    with pytest.raises(PreFlightError, match="no ordinary tokens"):
        load_dataset(synthetic(), 4, cache_dir=tmp_path)
    with pytest.raises(PreFlightError, match="has 3"):
        load_dataset(synthetic(n=3), 4, cache_dir=tmp_path, ordinary_ids=IDS)


@pytest.mark.skipif(not BUILTIN.exists(), reason="the package has no prompts of its own here")
def test_the_packaged_dataset_has_a_thousand_prompts_and_a_header(tmp_path: Path) -> None:
    dataset = load_dataset("mixed-1k", 1000, cache_dir=tmp_path)
    assert (dataset.name, dataset.size, len(dataset.prompts)) == ("mixed-1k", 1000, 1000)
    assert "_provenance" in dataset.provenance
    assert dataset_problems("mixed-1k", 1000, tmp_path) == []
    assert "has 1,000" in problem_of("mixed-1k", n=1001)


@pytest.mark.usefixtures("hub_allowed")
def test_an_uncached_aienergyscore_is_checked_for_size_without_the_network(tmp_path: Path) -> None:
    assert [p.where for p in dataset_problems("aienergyscore", 1001, tmp_path)] == ["n"]


def test_an_uncached_aienergyscore_offline_names_the_ways_out(tmp_path: Path) -> None:
    output = "\n".join(map(str, dataset_problems("aienergyscore", 10, tmp_path)))
    assert "HF_HUB_OFFLINE" in output
    assert "mixed-1k" in output
    assert ".jsonl" in output


@pytest.mark.skipif(not SHARED.exists(), reason="the original prompts are not at hand")
def test_the_original_prompts_have_the_pinned_hash(tmp_path: Path) -> None:
    dataset = load_dataset(str(SHARED), 10, cache_dir=tmp_path)
    assert (dataset.size, dataset.sha256) == (aienergyscore.SIZE, aienergyscore.SHA256)
    assert dataset.provenance["_commit"] == aienergyscore.COMMIT
