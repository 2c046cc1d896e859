"""What a user reads when the Hub says no, held against a server that speaks as the Hub does."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llenergymeasure.core.models import catalogue, sources
from llenergymeasure.core.models.hub import Hub
from llenergymeasure.exceptions import Problem

pytestmark = pytest.mark.usefixtures("hub_allowed")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = json.dumps(catalogue.config("tiny-llama")).encode()

# Status and X-Error-Code by owner, as huggingface.co answers.
ANSWERS: dict[str, tuple[int, str]] = {
    "gated": (403, "GatedRepo"),
    "gated-anonymous": (401, "GatedRepo"),
    "missing": (404, "RepoNotFound"),
    "revision": (404, "RevisionNotFound"),
    "adapter": (404, "EntryNotFound"),
    "broken": (500, ""),
}


class FakeHub(BaseHTTPRequestHandler):
    """Serves one good model and one kind of refusal an owner."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer(CONFIG)

    def _answer(self, body: bytes = b"") -> None:
        owner = self.path.split("/")[1]
        if owner == "silent":
            time.sleep(3)
        status, code = ANSWERS.get(owner, (200, ""))
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", '"an-etag"')
        self.send_header("Content-Length", str(len(CONFIG) if status == 200 else 0))
        self.end_headers()
        if status == 200:
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Keep quiet."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield Hub(f"http://127.0.0.1:{server.server_port}", tmp_path, timeout_s=1.0)
    server.shutdown()
    server.server_close()
    thread.join()


def problem(model: str, hub: Hub, revision: str | None = None) -> Problem:
    (found,) = sources.model_problems(model, revision, hub=hub)
    return found


def test_a_model_that_is_there_has_no_problem_and_its_shape_is_known_after(hub: Hub) -> None:
    assert sources.model_problems("good/model", hub=hub) == []
    found = sources.architecture_of(sources.resolve("good/model"), hub)
    assert found is not None
    assert found.hidden == 256


@pytest.mark.parametrize("owner", ["gated", "gated-anonymous"])
def test_a_gated_model_says_where_to_accept_the_licence(hub: Hub, owner: str) -> None:
    found = problem(f"{owner}/model", hub)
    assert "gated" in found.what
    assert f"https://huggingface.co/{owner}/model" in found.remedy
    assert "HF_TOKEN" in found.remedy


def test_a_missing_model_says_to_check_the_spelling(hub: Hub) -> None:
    found = problem("missing/model", hub)
    assert "is not on the Hub, or is private" in found.what
    assert "./missing/model" in found.remedy


def test_a_missing_revision_is_named(hub: Hub) -> None:
    found = problem("revision/model", hub, "v9")
    assert (found.where, "'v9'" in found.what) == ("revision", True)


def test_a_repository_without_a_configuration_is_no_model(hub: Hub) -> None:
    assert "has no config.json" in problem("adapter/model", hub).what


def test_a_broken_hub_is_reported_without_minutes_of_retries(hub: Hub) -> None:
    start = time.monotonic()
    assert "refused" in problem("broken/model", hub).what
    assert time.monotonic() - start < 60


def test_a_hub_that_never_answers_is_given_up_on(hub: Hub) -> None:
    start = time.monotonic()
    assert "cannot be reached" in problem("silent/model", hub).what
    assert time.monotonic() - start < 60


def test_an_adapter_that_is_there_is_fetched_with_its_rank(hub: Hub) -> None:
    assert sources.adapter_problems("good/lora", hub=hub) == []
    assert hub.cached("good/lora", "adapter_config.json", None) is not None


@pytest.mark.parametrize(
    ("adapter", "what", "remedy"),
    [
        ("missing/lora", "is not on the Hub", "for a local directory set lora.adapter_path"),
        ("adapter/lora", "has no adapter_config.json", "that holds an adapter"),
        ("./lora", "nor a possible name on the Hub", "or set lora.adapter_path"),
        ("broken/lora", "the Hub refused", "set lora.adapter_path to a local directory"),
    ],
)
def test_an_adapter_that_is_not_there_is_a_problem_of_its_field(
    hub: Hub, adapter: str, what: str, remedy: str
) -> None:
    (found,) = sources.adapter_problems(adapter, hub=hub)
    assert found.where == "lora.adapter_id"
    assert what in found.what
    assert remedy in found.remedy


def test_a_cached_model_needs_no_hub(hub: Hub, tmp_path: Path) -> None:
    assert sources.model_problems("good/model", hub=hub) == []
    unreachable = Hub("http://127.0.0.1:9", tmp_path, timeout_s=1.0)
    assert sources.model_problems("good/model", hub=unreachable) == []


def test_offline_and_not_cached_names_the_switch_and_the_routes(tmp_path: Path) -> None:
    # huggingface_hub reads the switch once, when it is imported.
    script = (
        "from llenergymeasure.core.models.sources import model_problems\n"
        "print(model_problems('owner/model')[0])\n"
    )
    environment = {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "PYTHONPATH": str(Path(sources.__file__).parents[3]),
    }
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "HF_HUB_OFFLINE forbids" in done.stdout
    assert "random:tiny-llama" in done.stdout
