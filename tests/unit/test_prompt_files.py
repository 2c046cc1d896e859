"""Files of prompts in every format: what is read, how much of it is held, and what is refused."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from pydantic import ValidationError

from llenergymeasure.config.models import DatasetFile, ExperimentConfig, StudyConfig
from llenergymeasure.config.names import PROMPT_FILES
from llenergymeasure.config.yaml_file import build
from llenergymeasure.config.yaml_file import read as read_yaml
from llenergymeasure.datasets import tables
from llenergymeasure.datasets.loader import Look, dataset_problems, load_dataset, look
from llenergymeasure.domain.prompts import Dataset, Message, Prompt
from llenergymeasure.exceptions import ConfigError, Problem, StudyError
from llenergymeasure.study.grid import expand

Rows = list[dict[str, Any]]


def as_jsonl(rows: Rows) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def as_list(rows: Rows) -> bytes:
    return json.dumps(rows, ensure_ascii=False, indent=1).encode()


def as_csv(rows: Rows) -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row))

    def cell(value: object) -> str:
        text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
        return '"' + text.replace('"', '""') + '"'

    lines = [",".join(names), *(",".join(cell(row.get(name)) for name in names) for row in rows)]
    return "\r\n".join(lines).encode() + b"\r\n"


def as_parquet(rows: Rows) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


WRITERS: dict[str, Callable[[Rows], bytes]] = {
    ".jsonl": as_jsonl,
    ".json": as_list,
    ".csv": as_csv,
    ".parquet": as_parquet,
    **{
        f"{ending}.gz": lambda rows, write=write: gzip.compress(write(rows))
        for ending, write in ((".jsonl", as_jsonl), (".json", as_list), (".csv", as_csv))
    },
}


def written(folder: Path, rows: Rows, ending: str = ".jsonl") -> str:
    path = folder / f"prompts{ending}"
    path.write_bytes(WRITERS[ending.lower()](rows))
    return str(path)


def load(spec: str | DatasetFile, n: int | None = None) -> Dataset:
    return load_dataset(spec, n, cache_dir=Path("unused"))


def only(spec: str | DatasetFile, n: int | None = None) -> Problem:
    (problem,) = dataset_problems(spec, n, Path("unused"))
    assert len(str(problem)) < 1000
    return problem


def chat(*turns: str) -> list[dict[str, str]]:
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[turn[0]], "content": turn} for turn in turns]


def messages(*turns: str) -> tuple[Message, ...]:
    return tuple(Message(**turn) for turn in chat(*turns))  # type: ignore[arg-type]


# Formats ------------------------------------------------------------------------------------------

PLAIN: Rows = [
    {"prompt": 'one, "two"\nand three', "max_new_tokens": 5},
    {"prompt": "é世", "max_new_tokens": None},
    {"prompt": "010", "max_new_tokens": 7},
]


def test_every_format_has_a_writer_here() -> None:
    assert set(WRITERS) == set(PROMPT_FILES)


@pytest.mark.parametrize("ending", PROMPT_FILES)
def test_every_format_gives_the_same_prompts_and_the_same_hash(tmp_path: Path, ending: str) -> None:
    dataset = load(written(tmp_path, PLAIN, ending))
    assert dataset.prompts == (
        Prompt(text='one, "two"\nand three', max_new_tokens=5),
        Prompt(text="é世"),
        Prompt(text="010", max_new_tokens=7),
    )
    assert (dataset.size, dataset.column, dataset.unused) == (3, "prompt", ())
    assert dataset.sha256 == load(written(tmp_path, PLAIN)).sha256


@pytest.mark.parametrize("ending", PROMPT_FILES)
def test_chats_are_read_from_every_format(tmp_path: Path, ending: str) -> None:
    rows: Rows = [{"messages": chat("s be short", "u one", "a two", "u three")}]
    dataset = load(written(tmp_path, rows, ending))
    assert dataset.prompts[0].messages == messages("s be short", "u one", "a two", "u three")
    assert dataset.prompts[0].text is None
    assert dataset.sha256 == load(written(tmp_path, rows)).sha256


@pytest.mark.parametrize("ending", [".JSONL", ".Csv", ".PARQUET", ".JsonL.GZ"])
def test_capital_letters_in_an_ending_mean_the_same(tmp_path: Path, ending: str) -> None:
    assert load(written(tmp_path, PLAIN, ending)).size == 3


def test_json_files_of_lines_are_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "lines.json"
    path.write_bytes(as_jsonl(PLAIN))
    assert load(str(path)).prompts == load(written(tmp_path, PLAIN)).prompts


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_with_a_byte_order_mark_and_any_line_end_is_read(tmp_path: Path, end: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(("\ufeff" + end.join(["text, max_tokens", "a b,3", "", "c, "])).encode())
    assert load(str(path)).prompts == (Prompt("a b", max_new_tokens=3), Prompt("c"))


def test_parquet_reads_only_the_columns_it_needs(tmp_path: Path) -> None:
    rows: Rows = [{"id": 1, "text": "a", "embedding": [1.0, 2.0], "max_tokens": 4.0}]
    dataset = load(written(tmp_path, [*rows, {**rows[0], "max_tokens": None}], ".parquet"))
    assert dataset.prompts == (Prompt("a", max_new_tokens=4), Prompt("a"))
    assert dataset.unused == ("id", "embedding")


@pytest.mark.parametrize("cell", ["x" * (tables.MAX_ROW_BYTES // 3), "x\n" * 3_000_000])
def test_a_row_of_csv_is_bounded_as_a_whole(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text("prompt,b,c,d\n" + ",".join(4 * [f'"{cell}"']))
    told = only(str(path))
    assert (told.where, told.what) == (f"{path}, line 2", tables.TOO_LONG)


def test_of_a_line_that_is_too_long_it_is_said_what_helps(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"x" * (tables.MAX_ROW_BYTES + 1))
    assert "give each row a line of its own" in str(only(str(tmp_path / "a.jsonl")))


def test_csv_of_pandas_has_whole_numbers_with_a_point(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"prompt,max_tokens\na,64.0\nb,\nc,7.\n")
    assert [one.max_new_tokens for one in load(str(path)).prompts] == [64, None, 7]


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz"])
def test_a_large_file_is_never_held_whole(tmp_path: Path, ending: str) -> None:
    text = "word " * 2000
    path = written(tmp_path, [{"prompt": f"{number} {text}"} for number in range(2000)], ending)
    load(path, 1)  # imports
    tracemalloc.start()
    dataset = load(path, 5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (dataset.size, len(dataset.prompts)) == (2000, 5)
    assert peak < 10 << 20, f"{peak:,} bytes for a file of 20 MB"


# Columns ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["prompt", "text", "text_input", "question"])
@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_prompts_are_found_by_the_usual_names(tmp_path: Path, name: str, ending: str) -> None:
    dataset = load(written(tmp_path, [{"id": 1, name: "a", "answer": "b"}], ending))
    assert dataset.prompts == (Prompt("a"),)
    assert (dataset.column, dataset.unused) == (name, ("id", "answer"))


def test_of_several_columns_of_text_the_first_of_the_usual_order_counts(tmp_path: Path) -> None:
    dataset = load(written(tmp_path, [{"question": "q", "text": "t", "prompt": "p"}]))
    assert dataset.prompts == (Prompt("p"),)
    assert dataset.unused == ("question", "text")


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet"])
def test_a_column_that_is_named_is_read_and_no_other(tmp_path: Path, ending: str) -> None:
    rows: Rows = [{"prompt": "p", "query": "q", "max_tokens": 3, "cap": 9}]
    path = written(tmp_path, rows, ending)
    dataset = load(DatasetFile(path=path, column="query", limit_column="cap"))
    assert dataset.prompts == (Prompt("q", max_new_tokens=9),)
    assert set(dataset.unused) == {"prompt", "max_tokens"}
    assert dataset.name == path


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize(
    ("row", "named", "said"),
    [
        ({"promt": "a", "id": "1"}, {}, "no column is called prompt, text"),
        ({"prompt": "a", "id": "1"}, {"column": "text"}, "there is no column 'text'"),
        ({"prompt": "a", "messages": "b"}, {}, "prompt and messages may hold the prompts"),
        ({"messages": "a", "conversations": "b"}, {}, "messages and conversations may hold"),
    ],
)
def test_a_column_that_is_missing_or_unclear_is_told_with_those_there_are(
    tmp_path: Path, ending: str, row: dict[str, str], named: dict[str, str], said: str
) -> None:
    problem = only(DatasetFile(path=written(tmp_path, [row] * 20, ending), **named))
    assert said in problem.what
    assert f"it has {', '.join(map(repr, row))}" in problem.what
    assert "dataset: {path: ..., column: ..." in problem.remedy


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet"])
def test_a_limit_column_that_no_row_has_is_told(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path, [{"prompt": "a", "cap": 3}] * 3, ending)
    assert "'capp'" in only(DatasetFile(path=path, limit_column="capp")).what


def test_a_limit_column_that_some_rows_have_is_fine(tmp_path: Path) -> None:
    path = written(tmp_path, [{"prompt": "a"}, {"prompt": "b", "cap": 3}])
    dataset = load(DatasetFile(path=path, limit_column="cap"))
    assert [one.max_new_tokens for one in dataset.prompts] == [None, 3]


@pytest.mark.parametrize(
    "name", ["max_new_tokens", "max_tokens", "output_len", "max_output_tokens"]
)
@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_what_other_tools_call_the_length_of_an_answer_is_understood(
    tmp_path: Path, name: str, ending: str
) -> None:
    rows: Rows = [{"prompt": "a", name: 7}, {"prompt": "b", name: 9}]
    dataset = load(written(tmp_path, rows, ending))
    assert [one.max_new_tokens for one in dataset.prompts] == [7, 9]
    assert dataset.unused == ()


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet"])
def test_two_lengths_that_differ_are_refused_with_their_row(tmp_path: Path, ending: str) -> None:
    rows: Rows = [{"prompt": "a", "max_tokens": 7, "output_len": 7}]
    assert load(written(tmp_path, rows, ending)).prompts[0].max_new_tokens == 7
    problem = only(written(tmp_path, [*rows, {**rows[0], "output_len": 8}], ending))
    assert "'max_tokens' is 7 and 'output_len' is 8" in problem.what
    number = {".jsonl": "line 2", ".csv": "line 3"}.get(ending, "row 2")
    assert problem.where.endswith(f", {number}")


def test_other_keys_are_named_once_and_not_without_end(tmp_path: Path) -> None:
    rows: Rows = [{"prompt": "a", f"key{n}": 1, "x" * 100: 2} for n in range(50)]
    unused = load(written(tmp_path, rows)).unused
    assert unused[:2] == ("key0", "x" * 40)
    assert len(unused) < 10
    turns = [{"role": "user", "content": "a", "weight": 1, "name": None}]
    assert load(written(tmp_path, [{"messages": turns}])).unused == ("messages.weight",)


# Rows that are no prompts -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "where", "reason"),
    [
        ("a.jsonl", b'{"prompt": "a", "prompt": "b"}', "line 1", "'prompt' is given twice"),
        ("a.jsonl", b'{"prompt": "a", "x": {"y": 1, "y": 2}}', "line 1", "'y' is given twice"),
        ("a.json", b'[{"prompt": "a", "prompt": "b"}]', "row 1", "'prompt' is given twice"),
        ("a.jsonl", b'"text"', "line 1", "not an object"),
        ("a.json", b'[{"prompt": "a"}, 3]', "row 2", "not an object"),
        ("a.json", b'[{"prompt": "a"}, {"prompt": "b"}', "row 2", "neither a comma nor the end"),
        ("a.json", b'[{"prompt": "a"} {"prompt": "b"}]', "row 1", "neither a comma nor the end"),
        ("a.json", b'[{"prompt": "a"}] x', "row 1", "does not end as it should"),
        ("a.json", b'[{"prompt": "a"}, {"prompt"', "row 2", "not JSON"),
        ("a.json", b"\0\0\0", "row 1", "not JSON"),
        ("a.json", b'[{"prompt": "\xff"}]', "row 1", "not UTF-8"),
        ("a.json", b"[" * 100_000, "row 1", "not a prompt"),
        ("a.csv", b"prompt,id\na,1\nb\n", "line 3", "1 cells, where the heading has 2"),
        ("a.csv", b'prompt\n"a\nb"\n"c"d\n', "line 4", "not CSV"),
        ("a.csv", b'prompt\n"a\n', "line 2", "not CSV"),
        ("a.csv", b"prompt\n\xff\n", "line 1", "not UTF-8"),
        ("a.csv", b"prompt,prompt\na,b\n", "line 1", "'prompt' is there twice"),
        ("a.csv", b"prompt,max_tokens\na,4.5\n", "line 2", "'max_tokens' is not a positive"),
        ("a.csv", b"prompt,max_tokens\na,0\n", "line 2", "'max_tokens' is not a positive"),
        ("a.csv", b"prompt\n \n\n,\n", "line 4", "2 cells"),
        ("a.parquet", b"PAR1 and no more", "", "not Parquet"),
        ("a.parquet", b"", "", "not Parquet"),
        ("a.jsonl.gz", b"not gz", "", "compression is damaged"),
        ("a.jsonl.gz", gzip.compress(b'{"prompt": "a"}\n' * 99, mtime=0)[:-9], "", "or cut off"),
        ("a.csv.gz", gzip.compress(b"prompt\na\n", mtime=0)[:-9], "", "or cut off"),
        ("a.jsonl", b'{"prompt": "a", "max_tokens": 1e12}', "line 1", "up to 1,000,000,000"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_told_with_file_place_and_remedy(
    tmp_path: Path, name: str, content: bytes, where: str, reason: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    problem = dataset_problems(str(path), 1, tmp_path)[0]
    assert problem.where == f"{path}, {where}".removesuffix(", ")
    assert reason in problem.what
    assert len(problem.what) < 200
    assert problem.remedy


def test_parquet_with_values_that_are_no_text_is_told_row_by_row(tmp_path: Path) -> None:
    problems = dataset_problems(written(tmp_path, [{"prompt": 3}] * 20, ".parquet"), 1, tmp_path)
    assert len(problems) == 10
    assert problems[1].where.endswith(", row 2")
    assert "'prompt' is not a string" in problems[1].what


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], "asks nothing"),
        (None, "a list of turns is missing"),
        ("user: hello", "no JSON stands in the place of a list"),
        ({"role": "user"}, "a list of turns is missing"),
        (["hello"], "turn 1 is not an object"),
        (chat("s only"), "asks nothing"),
        (chat("a only"), "asks nothing"),
        ([{"role": "tool", "content": "x"}], "turn 1 is by 'tool'"),
        ([{"content": "x"}], "turn 1 is by 'None'"),
        ([{"role": "user", "content": ""}], "turn 1 has no text"),
        ([{"role": "user", "content": 3}], "turn 1 has no text"),
        ([{"role": "user"}], "turn 1 has no text"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "a part of 'image_url'"),
        ([{"role": "user", "content": [{"type": "text"}]}], "only text is measured"),
        ([{"role": "user", "content": ["x"]}], "only text is measured"),
        ([{"role": "user", "content": "\ud800"}], "half of a surrogate pair"),
    ],
)
def test_a_chat_that_cannot_be_asked_is_told_with_its_turn(
    tmp_path: Path, turns: object, reason: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"messages": turns}) + "\n")
    problem = only(str(path))
    assert reason in problem.what
    assert '{"messages": [{"role": "user"' in problem.remedy


# Chats --------------------------------------------------------------------------------------------


def test_turns_of_sharegpt_are_a_chat_up_to_the_last_answer(tmp_path: Path) -> None:
    spoken = [("system", "s"), ("human", "u1"), ("gpt", "a1"), ("human", "u2"), ("gpt", "a2")]
    row = {"id": "x", "conversations": [{"from": who, "value": what} for who, what in spoken]}
    dataset = load(written(tmp_path, [row]))
    assert dataset.prompts[0].messages == messages("s", "u1", "a1", "u2")
    assert (dataset.column, dataset.unused) == ("conversations", ("id",))


def test_an_answer_at_the_end_of_a_chat_is_no_part_of_the_prompt(tmp_path: Path) -> None:
    rows: Rows = [{"messages": [*chat("u"), {"role": "assistant", "content": None}]}]
    assert load(written(tmp_path, rows)).prompts[0].messages == messages("u")


def test_parts_of_text_are_lines_of_one_text(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    rows: Rows = [{"messages": [{"role": "user", "content": parts}]}]
    assert load(written(tmp_path, rows)).prompts[0].messages == (Message("user", "one\ntwo"),)


def test_a_prompt_that_is_a_list_of_turns_is_a_chat(tmp_path: Path) -> None:
    assert load(written(tmp_path, [{"prompt": chat("u")}])).prompts[0].messages == messages("u")


def test_the_hash_of_chats_tells_roles_and_turns_apart(tmp_path: Path) -> None:
    talks = [chat("u"), chat("u", "a", "u"), chat("s", "u")]
    hashes = {load(written(tmp_path, [{"messages": talk}])).sha256 for talk in talks}
    assert len(hashes | {load(written(tmp_path, [{"prompt": "u"}])).sha256}) == 4


def test_orders_of_roles_are_told_once_of_what_is_used(tmp_path: Path) -> None:
    talks = [chat("u"), chat("u", "a", "u"), chat("u"), chat("s", "u")]
    path = written(tmp_path, [{"messages": talk} for talk in talks])
    assert look(path, 3) == Look((("user",), ("user", "assistant", "user")))
    assert look(written(tmp_path, PLAIN), 3) == Look()
    assert look(written(tmp_path, [{"text": "a", "max_tokns": 3}]), 3) == Look((), ("max_tokns",))
    assert look("mixed-1k", 3) == Look()
    assert look(str(tmp_path / "absent.jsonl"), 3) is None


# The field ----------------------------------------------------------------------------------------


def config(dataset: object, **fields: object) -> ExperimentConfig:
    return ExperimentConfig.model_validate({"model": "m", "dataset": dataset, **fields})


def test_a_path_alone_and_a_section_with_it_are_one_experiment() -> None:
    plain, section = config("a.csv"), config({"path": "a.csv"})
    assert plain.fingerprint() == section.fingerprint()
    assert config({"path": "a.csv", "column": "x"}).fingerprint() != plain.fingerprint()


def test_a_system_prompt_is_another_experiment() -> None:
    asked = ({}, {"system_prompt": "x"}, {"system_prompt": "y"})
    made = [config("a.csv", apply_chat_template=True, **one).fingerprint() for one in asked]
    assert len(set(made)) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dataset: {pth: a.csv}", "dataset.pth: unknown field 'pth', did you mean 'path'?"),
        ("dataset: {path: a.csv, colum: x}", "did you mean 'column'?"),
        ("dataset: {path: 3}", "dataset.path: must be text"),
        ("dataset: {path: ''}", "dataset.path: must not be empty"),
        ("dataset: {syntetic: {n: 3}}", "did you mean 'synthetic'?"),
        ("dataset: {synthetic: {n: 0}}", "dataset.synthetic.n: must be 1 or more"),
        ("dataset: {synthetic: {n: 2}}\nsystem_prompt: x", "system_prompt: has no effect"),
        ("system_prompt: ''", "system_prompt: must not be empty"),
        ("backend: scripted\nsystem_prompt: x", "scripted does not honour it"),
    ],
)
def test_a_wrong_dataset_section_is_told_in_its_own_words(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"model: m\n{text}\n")
    with pytest.raises(ConfigError) as refused:
        build(ExperimentConfig, read_yaml(path))
    assert said in refused.value.message
    assert "function-" not in refused.value.message
    assert refused.value.message.count("dataset.") <= 2


def test_columns_of_one_file_can_be_swept() -> None:
    study = StudyConfig.model_validate(
        {"model": "m", "dataset": {"path": "a.csv"}, "sweep": {"dataset.column": ["x", "y"]}}
    )
    datasets = [one.dataset for one in expand(study).experiments]
    assert datasets == [DatasetFile(path="a.csv", column=name) for name in ("x", "y")]
    with pytest.raises(StudyError, match=r"dataset\.path: this field is required"):
        expand(StudyConfig.model_validate({"model": "m", "sweep": {"dataset.column": ["x"]}}))


def test_a_system_prompt_that_no_tokenizer_takes_is_refused() -> None:
    with pytest.raises(ValidationError, match="must be valid Unicode"):
        config("a.csv", system_prompt="\ud800")


@pytest.mark.parametrize("field", ["dataset: {}/p.CSV", "dataset: {{path: {}/p.CSV, column: x}}"])
def test_a_path_is_taken_from_the_folder_of_the_file(tmp_path: Path, field: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "p.CSV").write_text("x\n")
    file = tmp_path / "a.yaml"
    file.write_text(f"model: m\n{field.format('sub')}\n")
    dataset = ExperimentConfig.from_yaml(file).dataset
    named = dataset if isinstance(dataset, str) else dataset.path  # type: ignore[union-attr]
    assert named == str(tmp_path.resolve() / "sub" / "p.CSV")


@pytest.mark.parametrize("name", ["prompts.txt", "prompts", "~nosuchuser/p.jsonl", "a\0b.jsonl"])
def test_a_path_that_is_no_file_of_prompts_is_told(name: str) -> None:
    for spec in (name, DatasetFile(path=name)):
        assert ".jsonl" in str(only(spec))


def test_a_pipe_or_a_device_is_no_dataset_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    assert "pipe" in only(str(tmp_path / "pipe.csv")).what
    assert "device" in only(str(tmp_path / "zero.jsonl")).what


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_three_gigabytes_on_one_line_are_answered_at_once(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as file:
        file.truncate(3 << 30)  # holes
    assert len(only(str(tmp_path / name)).what) < 300


def test_one_endless_string_is_given_up(tmp_path: Path) -> None:
    for name, begin in (("a.json", b'[{"prompt": "'), ("a.csv", b'prompt\n"')):
        (tmp_path / name).write_bytes(begin + b"x" * (tables.MAX_ROW_BYTES + (3 << 20)))
        assert "longer than" in only(str(tmp_path / name)).what


# Whatever there is --------------------------------------------------------------------------------

PIECES = [
    b'{"prompt": "a"}', b"{", b"}", b"[", b"]", b'"', b",", b"\n", b"\r", b"prompt", b"messages",
    b'{"messages": [{"role": "user", "content": "a"}]}', b"\xff", b"\0", b"\\ud800", b"1e999",
    b"NaN", b"-0", b"null", b"max_tokens", b":", b"PAR1", b"\xef\xbb\xbf", b"_provenance",
    b"\x1f\x8b",
]  # fmt: skip


def damaged(seed: int, ending: str) -> bytes:
    """Give a file that somebody broke: cut, changed, doubled, or made of pieces."""
    draw = random.Random(seed)
    if draw.random() < 0.4:
        return b"".join(draw.choices(PIECES, k=draw.randrange(12)))
    talk: object = draw.choice([chat("u"), chat("s", "u"), "a", 3, None])
    content = bytearray(WRITERS[ending]([{"prompt": "a", "x": 1}, {"prompt": "b", "x": 2}]))
    if draw.random() < 0.5 and ending != ".parquet":
        content = bytearray(WRITERS[ending]([{"messages": talk}] * 2))
    for _ in range(draw.randrange(1, 4)):
        at = draw.randrange(len(content) + 1)
        content[at : at + draw.randrange(9)] = draw.choice(PIECES)
    return bytes(content[: draw.randrange(len(content) + 1)] if draw.random() < 0.3 else content)


def check_damaged(folder: Path, seeds: range) -> None:
    for seed in seeds:
        ending = PROMPT_FILES[seed % len(PROMPT_FILES)]
        path = folder / f"prompts{ending}"
        path.write_bytes(damaged(seed, ending))
        said = "\n".join(map(str, dataset_problems(str(path), 1, folder)))
        assert len(said) < 4000, (seed, said)
        look(str(path), 1)


def test_no_damage_to_a_file_of_prompts_ends_in_anything_but_words(tmp_path: Path) -> None:
    check_damaged(tmp_path, range(500))


@pytest.mark.exhaustive
def test_no_damage_at_all_ends_in_anything_but_words(tmp_path: Path) -> None:
    check_damaged(tmp_path, range(500, 10_500))
