"""Engines that break, credentials in what they print, and output that goes elsewhere."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support.cli import QUICK, THIRD_PARTY, Llem

SECRET = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWx"
PRINTING = """
import logging
import os
import sys


class Backend(ScriptedBackend):
    def load(self, config, cache_dir):
        token = os.environ["HF_TOKEN"]
        print("out", token)
        print("err", token, file=sys.stderr)
        logging.getLogger("engine").warning("log %s", token)
        print("in pieces ", token[:10], token[10:], sep="", end="")
        {ending}
"""


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    return Llem(tmp_path)


def directory(llem: Llem) -> Path:
    (found,) = (llem.folder / "results").iterdir()
    return found


@pytest.mark.parametrize("phase", ["load", "warmup", "measure"])
def test_an_engine_that_breaks_leaves_an_error_and_no_result(llem: Llem, phase: str) -> None:
    llem.write(
        "breaks.yaml",
        "model: m\nbackend: scripted\nenergy_backend: none\nn: 4\nmax_new_tokens: 2\n"
        f"scripted: {{fail_at: {phase}}}\n",
    )
    done = llem("run", "breaks.yaml")
    assert (done.code, done.out) == (1, "")
    assert f"llem: the experiment failed in phase '{phase}': the script says to fail" in done.err
    assert not (directory(llem) / "result.json").exists()
    error = json.loads((directory(llem) / "error.json").read_text())
    assert (error["phase"], error["code"]) == (phase, "backend")


def test_json_of_a_failed_experiment_names_the_phase(llem: Llem) -> None:
    llem.write("breaks.yaml", "model: m\nbackend: scripted\nscripted: {fail_at: load}\n")
    done = llem("run", "breaks.yaml", "--energy-backend", "none", "--json")
    assert done.code == 1
    assert (done.error["code"], done.error["where"]) == ("experiment", "load")


FOREIGN = """
class Backend(ScriptedBackend):
    def load(self, config, cache_dir):
        engine = super().load(config, cache_dir)
        engine.run = self.explode
        return engine

    def explode(self, *arguments):
        print("about to go")
        raise RuntimeError("device-side assert triggered")
"""


def test_a_foreign_exception_is_reported_and_its_traceback_kept_in_the_log(llem: Llem) -> None:
    llem.plugin(FOREIGN)
    done = llem("run", *THIRD_PARTY)
    assert done.code == 1
    assert "failed in phase 'warmup': RuntimeError: device-side assert triggered" in done.err
    log = directory(llem) / "log.txt"
    assert f"what the engine printed: {log.relative_to(llem.folder)}" in done.err
    assert "about to go" in log.read_text()
    assert "Traceback" in log.read_text()


def test_a_third_party_backend_has_its_own_section(llem: Llem) -> None:
    llem.plugin("Backend = ScriptedBackend")
    text = "model: random:tiny-llama\nbackend: thirdparty\nenergy_backend: none\nn: 2\n"
    text += "max_new_tokens: 2\nthirdparty: {shout: loud}\n"
    llem.write("good.yaml", text)
    done = llem("run", "good.yaml", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["config"]["thirdparty"] == {"shout": "loud"}
    llem.write("bad.yaml", text.replace("shout", "shuot"))
    done = llem("run", "bad.yaml")
    assert done.code == 1
    assert "bad.yaml, line 6: thirdparty" in done.err
    assert "did you mean 'shout'?" in done.err


@pytest.mark.parametrize(
    "ending",
    [
        "return super().load(config, cache_dir)",
        "raise RuntimeError('refused ' + token)",
        "from llenergymeasure.exceptions import BackendError; raise BackendError('no ' + token)",
    ],
)
def test_a_credential_that_an_engine_prints_reaches_no_file(llem: Llem, ending: str) -> None:
    llem.plugin(PRINTING.format(ending=ending))
    llem.environment["HF_TOKEN"] = "a-token-of-no-known-shape-1234"
    done = llem("run", *THIRD_PARTY)
    assert "no-known-shape" not in done.out + done.err
    files = [path for path in llem.left("results") if path.is_file()]
    assert {"config.json", "events.jsonl", "log.txt"} <= {path.name for path in files}
    for path in files:
        assert b"no-known-shape" not in path.read_bytes(), path.name
    log = (directory(llem) / "log.txt").read_text()
    for beginning in ("out ", "err ", "log ", "in pieces "):
        assert beginning + "***" in log, log


def test_a_token_of_a_known_shape_is_hidden_even_when_it_is_not_in_the_environment(
    llem: Llem,
) -> None:
    llem.plugin(
        "class Backend(ScriptedBackend):\n"
        "    def load(self, config, cache_dir):\n"
        f"        raise RuntimeError('https://me:pw@host refused {SECRET}')\n"
    )
    done = llem("run", *THIRD_PARTY, "--json")
    assert done.error["message"].count("***") == 2
    kept = b"".join(path.read_bytes() for path in llem.left("results") if path.is_file())
    assert SECRET.encode() not in kept
    assert SECRET not in done.out + done.err


def test_a_second_run_never_overwrites_the_first(llem: Llem) -> None:
    running = [llem.start("run", *QUICK, "-q") for _ in range(4)]
    assert [process.communicate(timeout=60)[1] for process in running] == [""] * 4
    results = list(llem.folder.glob("results/*/result.json"))
    assert len(results) == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", *QUICK, "-q"), ""),
        (("config",), "llem: looking at this machine\n"),
        (("--help",), ""),
    ],
)
def test_a_reader_that_leaves_early_sees_no_traceback(
    llem: Llem, arguments: tuple[str, ...], said: str
) -> None:
    pipe = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    pipe.wait()
    assert pipe.stdin is not None
    done = subprocess.run(
        llem.command(*arguments),
        cwd=llem.folder,
        env=llem.variables(),
        stdout=pipe.stdin,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (1, said)


def test_an_experiment_outlives_the_reader_of_its_progress(llem: Llem) -> None:
    process = llem.start("run", *QUICK, "-n", "20")
    assert process.stderr is not None
    process.stderr.readline()
    process.stderr.close()
    assert process.stdout is not None
    assert "Throughput" in process.stdout.read()
    assert process.wait(timeout=60) == 0


def test_output_that_is_no_terminal_has_no_escape_codes(llem: Llem) -> None:
    llem.environment |= {"FORCE_COLOR": "", "TERM": "xterm-256color"}
    for arguments in (("run", *QUICK), ("config",), ("run", "--help"), ("run", "--nope")):
        done = llem(*arguments)
        assert "\x1b" not in done.out + done.err
        assert "\r" not in done.out + done.err


def test_a_terminal_with_no_color_gets_no_colours(llem: Llem) -> None:
    llem.environment |= {"NO_COLOR": "1", "TERM": "xterm-256color"}
    for arguments in (["run", *QUICK], ["run", "--help"], ["run", "--nope"]):
        sized = "stty cols 80 rows 24"  # a terminal that is made has no size
        command = f"{sized}; {shlex.join(llem.command(*arguments))}"
        done = subprocess.run(
            ["script", "-qec", command, "/dev/null"],
            cwd=llem.folder,
            env=llem.variables(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert "llem" in done.stdout
        assert ("it/s" in done.stdout or "req/s" in done.stdout) is (QUICK[0] in arguments), "a bar"
        assert "\x1b[3" not in done.stdout, "a colour"
        assert "\x1b[1m" not in done.stdout, "bold"
