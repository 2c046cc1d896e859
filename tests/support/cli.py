"""Runs ``llem`` as a user does: a process of its own, in a clean home, for a bounded time."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
import unittest.mock
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

import llenergymeasure
from llenergymeasure.cli.app import main
from tests.support.nursery import Command, Warm

SOURCE = Path(llenergymeasure.__file__).parents[1]
QUICK = (
    "-m",
    "m",
    "-b",
    "scripted",
    "-n",
    "2",
    "--max-new-tokens",
    "2",
    "--energy-backend",
    "none",
)
"""Flags of an experiment of a tenth of a second that needs no engine."""
THIRD_PARTY = (*QUICK, "-b", "thirdparty", "-m", "random:tiny-llama")
"""The same with the backend that :meth:`Llem.plugin` installs; it has a model like any other."""
CLEAN = {
    "PATH": os.environ["PATH"],
    "HF_HUB_OFFLINE": "1",
    "LC_ALL": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(SOURCE),
}
READ_LATE = ("HOME", "XDG_", "TMPDIR", "LLEM_", "HF_TOKEN", "PATH")
"""How variables begin that the command reads when it runs, not its interpreter when it starts."""
WARM = Warm(CLEAN)

PLUGIN = """
from llenergymeasure.config.base import ConfigModel
from llenergymeasure.config.registry import BackendEntry
from llenergymeasure.core.backends.scripted.engine import ScriptedBackend


class Section(ConfigModel):
    shout: str = "nothing"


{body}


entry = BackendEntry(
    name="thirdparty",
    implementation="thirdparty:Backend",
    section="thirdparty:Section",
    batch_field="batch_size",
    precisions=("bf16",),
    decoding=("greedy",),
)
"""


@dataclass(frozen=True, slots=True)
class Done:
    """What a finished command left."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> dict[str, Any]:
        """The one JSON object that ``--json`` prints on failure."""
        body = json.loads(self.out)
        assert list(body) == ["error"]
        assert set(body["error"]) == {"code", "message", "where"}
        return dict(body["error"])


@dataclass
class Llem:
    """The command, in a folder and a home of its own.

    Attributes:
        folder: Where it runs.
        environment: Variables on top of the clean ones; an empty value removes one.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    source_path: list[str] = field(default_factory=lambda: [str(SOURCE)])

    def __call__(self, *arguments: str, timeout_s: float = 60, **options: Any) -> Done:
        """Run it to its end; no way out may show a traceback.

        It is forked from a process that has imported the command, unless something of it is read
        only by an interpreter that starts, or ``options`` of :func:`subprocess.run` are given.
        """
        if options or self._needs_a_start_of_its_own():
            return self.afresh(*arguments, timeout_s=timeout_s, **options)
        done = Done(*WARM.run(Command(arguments, str(self.folder), self.variables()), timeout_s))
        assert "Traceback" not in done.out + done.err, done.err
        return done

    def afresh(self, *arguments: str, timeout_s: float = 60, **options: Any) -> Done:
        """Run it to its end in an interpreter that starts for it."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.variables(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            **options,
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def _needs_a_start_of_its_own(self) -> bool:
        own = {name for name in self.environment if not name.startswith(READ_LATE)}
        return bool(own) or self.source_path[0] != str(SOURCE)

    def inline(self, *arguments: str) -> Done:
        """Run it in this process, which is quick, for what ends before an engine is touched."""
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.chdir(self.folder),
            unittest.mock.patch.dict(os.environ, self.variables()),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as end,
        ):
            main(list(arguments))
        assert "Traceback" not in out.getvalue() + err.getvalue(), err.getvalue()
        return Done(int(end.value.code or 0), out.getvalue(), err.getvalue())

    def fails(self, *arguments: str, code: int = 1, inline: bool = False, **options: Any) -> str:
        """Run what must fail before anything starts; give what it said."""
        done = self.inline(*arguments) if inline else self(*arguments, **options)
        assert (done.code, done.out) == (code, ""), (done.out, done.err)
        assert done.err.startswith("llem: "), done.err
        assert not self.left("results"), "a directory was made for an experiment that cannot start"
        return done.err

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start it as the leader of a process group, as a shell does."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def command(self, *arguments: str) -> list[str]:
        """Give the command line."""
        return [sys.executable, "-m", "llenergymeasure", *arguments]

    def in_shell(self, line: str, *arguments: str) -> Done:
        """Run a line of shell, with the command in the place of ``{}``."""
        done = subprocess.run(
            ["/bin/sh", "-c", line.format(f"exec {shlex.join(self.command(*arguments))}")],
            cwd=self.folder,
            env=self.variables(),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def script(self, text: str, timeout_s: float = 60) -> Done:
        """Run a Python script that uses the library, from a file and without a main guard."""
        path = self.write("script.py", text)
        done = subprocess.run(
            [sys.executable, str(path)],
            cwd=self.folder,
            env=self.variables(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def variables(self) -> dict[str, str]:
        """Give the environment: a clean home, its own temporary folder, no Hub."""
        home, temporary = self.folder / "home", self.folder / "tmp"
        home.mkdir(exist_ok=True)
        temporary.mkdir(exist_ok=True)
        locks = self.folder.with_name(f"{self.folder.name}-locks")  # they stay, as in /tmp
        locks.mkdir(exist_ok=True)
        clean = {
            **CLEAN,
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "TMPDIR": str(temporary),
            "LLEM_LOCK_DIR": str(locks),
            "HF_HOME": str(home / "huggingface"),
            "PYTHONPATH": os.pathsep.join(self.source_path),
        }
        merged: Mapping[str, str] = {**clean, **self.environment}
        return {name: value for name, value in merged.items() if value}

    def files_up_to(self, largest_bytes: int) -> Callable[[], None]:
        """Let no file grow beyond a size (a ``preexec_fn``); Python ignores the signal for it.

        Modules are not compiled into files then: they would be cut off, and stay so.
        """
        self.environment["PYTHONDONTWRITEBYTECODE"] = "1"
        return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest_bytes, largest_bytes))

    def write(self, name: str, text: str) -> Path:
        """Write a file into the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def user_config(self, text: str) -> Path:
        """Write the user's configuration."""
        return self.write("home/config/llenergymeasure/config.yaml", text)

    def left(self, name: str) -> list[Path]:
        """List everything below a folder."""
        return sorted((self.folder / name).rglob("*"))

    def plugin(self, body: str) -> None:
        """Install a third party's backend, called thirdparty; ``body`` defines class Backend."""
        self.write("site/thirdparty.py", PLUGIN.format(body=body))
        self.write(
            "site/thirdparty-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: thirdparty\nVersion: 1.0\n",
        )
        self.write(
            "site/thirdparty-1.0.dist-info/entry_points.txt",
            "[llenergymeasure.backends]\nthirdparty = thirdparty:entry\n",
        )
        self.source_path.append(str(self.folder / "site"))


def interrupt(
    process: subprocess.Popen[str], *, times: int = 1, number: signal.Signals = signal.SIGINT
) -> Done:
    """Press Ctrl-C, some times a twentieth of a second apart, and see what is left behind."""
    children = psutil.Process(process.pid).children(recursive=True)
    for _ in range(times):
        os.killpg(process.pid, number)
        time.sleep(0.05)
    out, err = process.communicate(timeout=30)
    _gone, alive = psutil.wait_procs(children, timeout=5)
    assert not alive, f"still running: {alive}"
    assert "Traceback" not in out + err, err
    return Done(process.returncode, out, err)


def wait_for(condition: Callable[[], object], timeout_s: float = 30) -> None:
    """Wait until something holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
