"""Fetching AIEnergyScore through the real Hub client, from a Hub on the loopback."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from llenergymeasure.datasets.aienergyscore import COMMIT, REPOSITORY, SHA256

SHARED = Path(__file__).parents[2].parent / "shared/data/aienergyscore.jsonl"
needs_prompts = pytest.mark.skipif(
    not SHARED.exists(), reason="the original prompts are not at hand"
)

SCRIPT = """
import json, sys
from pathlib import Path
from llenergymeasure.datasets.loader import dataset_problems, load_dataset
cache = Path(sys.argv[1])
problems = dataset_problems("aienergyscore", 1000, cache, fetch=True)
answer = {"problems": [str(problem) for problem in problems]}
if not problems:
    dataset = load_dataset("aienergyscore", 3, cache_dir=cache)
    answer |= {"size": dataset.size, "sha256": dataset.sha256, "used": len(dataset.prompts)}
    answer |= {"provenance": dataset.provenance}
print(json.dumps(answer))
"""


@dataclass
class Hub:
    """A Hub that has one dataset."""

    files: dict[str, bytes] = field(default_factory=dict)
    status: int = 200
    error_code: str = ""
    requests: list[str] = field(default_factory=list)
    port: int = 0

    def info(self) -> bytes:
        siblings = [{"rfilename": name} for name in [".gitattributes", "README.md", *self.files]]
        return json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}).encode()


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.requests.append(self.path)
            resolve = f"/datasets/{REPOSITORY}/resolve/{COMMIT}/"
            if hub.status != 200:
                self.reply(hub.status, b"")
            elif self.path.startswith(f"/api/datasets/{REPOSITORY}/revision/{COMMIT}"):
                self.reply(200, hub.info())
            elif self.path.startswith(resolve):
                content = hub.files.get(self.path.removeprefix(resolve))
                self.reply(404 if content is None else 200, content or b"")
            else:
                self.reply(404, b"")

        do_HEAD = do_GET  # noqa: N815 - the name the server looks for

        def reply(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            if hub.error_code:
                self.send_header("X-Error-Code", hub.error_code)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    return Handler


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(hub)) as server:
        hub.port = server.server_port
        Thread(target=server.serve_forever, daemon=True).start()
        yield hub
        server.shutdown()


def load(hub: Hub, tmp_path: Path, **environment: str) -> dict[str, Any]:
    """Load the dataset in a process of its own, since the client reads its settings at import."""
    base = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "cache")],
        env=base
        | {
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.port}",
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
        }
        | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    answer: dict[str, Any] = json.loads(process.stdout)
    return answer


def prompts() -> list[str]:
    lines = SHARED.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["prompt"] for line in lines[1:]]


def as_parquet(texts: list[str], column: str = "text") -> bytes:
    sink = BytesIO()
    parquet.write_table(pa.table({"id": range(len(texts)), column: texts}), sink)
    return sink.getvalue()


def as_csv(texts: list[str]) -> bytes:
    sink = BytesIO()
    csv.write_csv(pa.table({"text": texts}), sink)
    return sink.getvalue()


def as_jsonl(texts: list[str]) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


def only_problem(answer: dict[str, Any]) -> str:
    assert len(answer["problems"]) == 1
    message: str = answer["problems"][0]
    assert "mixed-1k" in message
    assert ".jsonl" in message
    return message


@needs_prompts
def test_it_is_fetched_once_checked_and_kept(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"data/train-00000-of-00001.parquet": as_parquet(prompts())}
    first = load(hub, tmp_path)
    assert first["problems"] == []
    assert (first["size"], first["sha256"], first["used"]) == (1000, SHA256, 3)
    assert first["provenance"]["_commit"] == COMMIT
    asked = len(hub.requests)
    assert asked
    assert load(hub, tmp_path, HF_HUB_OFFLINE="1") == first
    assert len(hub.requests) == asked
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(kept) == 1


@needs_prompts
@pytest.mark.parametrize(
    "files",
    [
        {"train.csv": as_csv},
        {"train.jsonl": as_jsonl},
        {"a.parquet": lambda texts: as_parquet([f" {text} \n" for text in texts])},
        {"a.parquet": lambda texts: as_parquet(texts, "prompt"), "b.csv": lambda _: b"text\nx\n"},
        {
            "data/train-00000-of-00002.parquet": lambda texts: as_parquet(texts[:400]),
            "data/train-00001-of-00002.parquet": lambda texts: as_parquet(texts[400:]),
        },
    ],
    ids=["csv", "jsonl", "white space", "prompt column", "shards"],
)
def test_the_form_of_its_files_does_not_matter(
    hub: Hub, tmp_path: Path, files: dict[str, Any]
) -> None:
    hub.files = {name: make(prompts()) for name, make in files.items()}
    answer = load(hub, tmp_path)
    assert answer["problems"] == []
    assert answer["sha256"] == SHA256


@needs_prompts
def test_a_damaged_copy_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"a.parquet": as_parquet(prompts())}
    load(hub, tmp_path)
    (kept,) = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    kept.write_bytes(kept.read_bytes()[:100_000])
    assert load(hub, tmp_path)["sha256"] == SHA256


def test_other_prompts_than_the_pinned_ones_are_refused_and_not_kept(
    hub: Hub, tmp_path: Path
) -> None:
    hub.files = {"a.parquet": as_parquet(["something else"] * 1000)}
    assert "other prompts" in only_problem(load(hub, tmp_path))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "lists no .parquet, .jsonl, .csv file"),
        ({"a.parquet": b"not parquet"}, "cannot be read"),
        ({"a.csv": b"words\nx\n"}, "no column is called prompt, text"),
    ],
)
def test_files_that_hold_no_prompts_are_refused(
    hub: Hub, tmp_path: Path, files: dict[str, bytes], reason: str
) -> None:
    hub.files = files
    assert reason in only_problem(load(hub, tmp_path))


@pytest.mark.parametrize(
    ("status", "error_code", "reason"),
    [
        (401, "GatedRepo", "HF_TOKEN"),
        (404, "RepoNotFound", "no such dataset"),
        (404, "RevisionNotFound", "no longer has commit"),
        (400, "", "answered with an error (HTTP 400)"),
    ],
)
def test_what_the_hub_answers_is_told(
    hub: Hub, tmp_path: Path, status: int, error_code: str, reason: str
) -> None:
    hub.status, hub.error_code = status, error_code
    assert reason in only_problem(load(hub, tmp_path))


def test_a_hub_that_is_not_there_is_told(hub: Hub, tmp_path: Path) -> None:
    answer = load(hub, tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert "cannot be reached" in only_problem(answer)


def test_offline_and_not_cached_is_told_without_a_request(hub: Hub, tmp_path: Path) -> None:
    assert "HF_HUB_OFFLINE" in only_problem(load(hub, tmp_path, HF_HUB_OFFLINE="1"))
    assert hub.requests == []


def test_a_cache_that_cannot_be_written_is_told(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the directory should be")
    assert "cannot be written" in only_problem(load(hub, tmp_path))
