"""Models, datasets and engines that are not there, and what the message says to do about it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.cli import QUICK, Llem

HIDER = """
import importlib.abc
import importlib.metadata
import sys

HIDDEN = {hidden!r}


class Hider(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        return None


sys.meta_path.insert(0, Hider())
find = importlib.metadata.Distribution.from_name.__func__


def from_name(cls, name):
    if name in HIDDEN:
        raise importlib.metadata.PackageNotFoundError(name)
    return find(cls, name)


importlib.metadata.Distribution.from_name = classmethod(from_name)
"""
PLAIN = ("run", "--energy-backend", "none", "--precision", "fp32", "-m")
THIRD_PARTY = ("run", "-b", "thirdparty", "--energy-backend", "none", "-m")
"""A backend that needs a model like any other, but takes no seconds to import."""


class Gate(BaseHTTPRequestHandler):
    """Answers as the Hub does for a gated model: 401 without a token, 403 with one."""

    def do_HEAD(self) -> None:
        status = 403 if self.headers.get("Authorization") else 401
        self.send_response(status)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD  # noqa: N815 - the base class looks methods up by this name

    def log_message(self, *arguments: object) -> None:
        """Keep quiet."""


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    return Llem(tmp_path)


@pytest.fixture
def gate() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gate)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_directory_that_does_not_exist(llem: Llem) -> None:
    llem.plugin("Backend = ScriptedBackend")
    said = llem.fails(*THIRD_PARTY, "./models/llama")
    assert "model: the directory './models/llama' does not exist" in said
    assert f"seen from {llem.folder}" in said


def test_a_directory_without_a_configuration(llem: Llem) -> None:
    llem.plugin("Backend = ScriptedBackend")
    (llem.folder / "empty").mkdir()
    assert "the directory './empty' has no config.json" in llem.fails(*THIRD_PARTY, "./empty")


def test_an_unknown_architecture_gets_the_nearest_name(llem: Llem) -> None:
    llem.plugin("Backend = ScriptedBackend")
    said = llem.fails(*THIRD_PARTY, "random:tiny-llma")
    assert "unknown architecture 'tiny-llma', did you mean 'tiny-llama'?" in said


def test_a_hub_that_cannot_be_reached(llem: Llem) -> None:
    llem.plugin("Backend = ScriptedBackend")
    llem.environment |= {
        "HF_HUB_OFFLINE": "",
        "HF_ENDPOINT": f"http://127.0.0.1:{closed_port()}",
    }
    begun_s = time.monotonic()
    said = llem.fails(*THIRD_PARTY, "owner/model")
    assert "'owner/model' is not in the Hub cache, and the Hub cannot be reached" in said
    assert "check the network, HF_ENDPOINT and HF_HUB_OFFLINE" in said
    assert "random:tiny-llama" in said
    assert time.monotonic() - begun_s < 60


@pytest.mark.parametrize("token", ["", "hf_" + "AbCdEfGhIjKlMnOpQrStUvWx"])
def test_a_gated_model_without_a_token_that_opens_it(llem: Llem, gate: str, token: str) -> None:
    llem.plugin("Backend = ScriptedBackend")
    llem.environment |= {"HF_HUB_OFFLINE": "", "HF_ENDPOINT": gate, "HF_TOKEN": token}
    said = llem.fails(*THIRD_PARTY, "meta/gated")
    assert "model: 'meta/gated' is gated" in said
    assert "accept the licence at https://huggingface.co/meta/gated" in said
    assert "HF_TOKEN" in said
    assert not token or token not in said


def test_a_dataset_without_prompts(llem: Llem) -> None:
    llem.write("empty.jsonl", "\n")
    said = llem.fails("run", *QUICK, "-d", "empty.jsonl", inline=True)
    assert "empty.jsonl: it holds no prompts" in said
    assert '{"prompt": "..."}' in said


def test_bad_lines_of_a_dataset_are_numbered(llem: Llem) -> None:
    llem.write("bad.jsonl", '{"prompt": "a"}\n{"prompt": 3}\n{"promt": "x"}\n{oops\n')
    said = llem.fails("run", *QUICK, "-d", "bad.jsonl", inline=True)
    assert "3 problems before anything was loaded" in said
    assert "bad.jsonl, line 2: 'prompt' is not a string" in said
    assert "bad.jsonl, line 3: 'prompt' is missing" in said
    assert "bad.jsonl, line 4: not JSON" in said


@pytest.mark.parametrize(
    ("dataset", "part"),
    [
        ("nowhere.jsonl", "cannot read nowhere.jsonl: No such file or directory"),
        ("mixed-1kk", "unknown dataset 'mixed-1kk'; did you mean 'mixed-1k'?"),
    ],
)
def test_a_dataset_that_is_not_there(llem: Llem, dataset: str, part: str) -> None:
    assert part in llem.fails("run", *QUICK, "-d", dataset, inline=True)


def test_more_prompts_than_the_dataset_has(llem: Llem) -> None:
    said = llem.fails("run", *QUICK, "-n", "1001", inline=True)
    assert "n: 1,001 prompts asked for, mixed-1k has 1,000" in said
    assert "set n: 1000 or less" in said


def test_an_engine_that_needs_a_gpu_and_is_not_installed(llem: Llem) -> None:
    said = llem.fails("run", "-m", "random:tiny-llama", "-b", "tensorrt", inline=True)
    assert "backend: 'tensorrt' needs the package tensorrt-llm, which is not installed" in said
    assert "pip install 'llenergymeasure[tensorrt]'" in said


def test_vllm_where_it_is_not_installed(llem: Llem) -> None:
    llem.write("site/sitecustomize.py", HIDER.format(hidden=["vllm"]))
    llem.source_path.insert(0, str(llem.folder / "site"))
    said = llem.fails("run", "-m", "random:tiny-llama", "-b", "vllm")
    assert "'vllm' needs the package vllm, which is not installed" in said
    assert "pip install 'llenergymeasure[vllm]'" in said


@pytest.mark.parametrize("hidden", ["transformers", "torch"])
def test_an_engine_that_is_not_installed(llem: Llem, hidden: str) -> None:
    llem.write("site/sitecustomize.py", HIDER.format(hidden=[hidden]))
    llem.source_path.insert(0, str(llem.folder / "site"))
    said = llem.fails(*PLAIN, "random:tiny-llama")
    assert f"'pytorch' needs the package {hidden}, which is not installed" in said
    assert "pip install 'llenergymeasure[pytorch]'" in said


def test_without_an_engine_the_rest_works(llem: Llem) -> None:
    llem.write("site/sitecustomize.py", HIDER.format(hidden=["transformers", "torch"]))
    llem.source_path.insert(0, str(llem.folder / "site"))
    assert llem("run", *QUICK).code == 0
    done = llem("config")
    assert done.code == 0
    assert "pip install 'llenergymeasure[pytorch]'" in done.out


def test_every_problem_of_a_machine_is_listed_at_once(llem: Llem) -> None:
    said = llem.fails("run", "-m", "/nowhere", "-b", "vllm", "-n", "2000", inline=True)
    assert "\nllem: 3 problems before anything was loaded:" in said
