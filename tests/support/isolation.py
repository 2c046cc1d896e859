"""Workers in processes of their own, and third-party backends that misbehave inside them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.registry import plugin_backends
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.study.events import Callbacks, Outcome
from llenergymeasure.study.runners.local import InterpreterRunner, ServedJob
from llenergymeasure.study.supervise import supervise
from tests.support.cli import SOURCE, Llem
from tests.support.scripted_run import make_order, scripted_config

LONG_S = 300.0
IN_SERVER = '"fork_server" in sys.argv[0]'
"""An expression that holds where a fork server imports the backend, and not in a worker."""

GRANDCHILD = """
import os, subprocess, sys, time
from pathlib import Path

DAEMON = '''
import os, sys, time
from pathlib import Path
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
path = Path(sys.argv[1])
path.with_suffix(".part").write_text(str(os.getpid()))
path.with_suffix(".part").replace(path)
time.sleep(3600)
'''

def leave_a_daemon(path):
    subprocess.run([sys.executable, "-c", DAEMON, path], check=True)
    while not Path(path).exists():
        time.sleep(0.01)
"""


def backend(load: str, top: str = "import os, signal, sys, time\nfrom pathlib import Path") -> str:
    """Write a backend whose ``load`` begins with some lines, and goes on as the scripted one."""
    lines = "\n".join(f"        {line}" for line in load.splitlines())
    return (
        f"{top}\n\nclass Backend(ScriptedBackend):\n"
        f"    def load(self, config, cache_dir):\n{lines}\n"
        "        return super().load(config, cache_dir)\n"
    )


@dataclass
class Workers:
    """A runner under test with a folder of its own.

    Attributes:
        folder: Where experiments and plugins lie.
        method: ``forkserver`` or ``spawn``.
    """

    folder: Path
    method: str
    patch: pytest.MonkeyPatch
    runners: list[InterpreterRunner] = field(default_factory=list)

    def runner(self, name: str = "scripted", **options: Any) -> InterpreterRunner:
        """Make a runner that is closed at the end of the test."""
        made = InterpreterRunner(name, start_method=self.method, **options)  # type: ignore[arg-type]
        self.runners.append(made)
        return made

    def install(self, body: str) -> None:
        """Install the backend ``thirdparty``, for this process and those it starts."""
        llem = Llem(self.folder)
        llem.plugin(body)
        self.patch.syspath_prepend(llem.source_path[-1])
        self.patch.setenv("PYTHONPATH", os.pathsep.join([str(SOURCE), *llem.source_path[1:]]))
        plugin_backends.cache_clear()

    def order(self, **fields: Any) -> WorkOrder:
        """Make an order for a short experiment."""
        return make_order(config_of(**fields), self.folder)

    def directory(self, order: WorkOrder, name: str = "one") -> ExperimentDirectory:
        """Make the directory of an experiment."""
        directory = ExperimentDirectory(self.folder / "results" / name)
        directory.root.mkdir(parents=True)
        directory.config.write_text(order.model_dump_json())
        return directory

    def run(
        self,
        runner: InterpreterRunner,
        name: str = "one",
        calls: Callbacks | None = None,
        within_s: float = LONG_S,
        **fields: Any,
    ) -> Outcome:
        """Run one experiment to its end."""
        order = self.order(**fields)
        directory = self.directory(order, name)
        self.job: ServedJob = runner.start(directory)
        calls = calls or Callbacks()
        return supervise(self.job, directory, order, calls, within_s=within_s).outcome

    def misbehave(
        self, load: str, calls: Callbacks | None = None, within_s: float = LONG_S
    ) -> Outcome:
        """Run one experiment on a backend whose ``load`` begins with some lines."""
        self.install(backend(load))
        runner = self.runner("thirdparty")
        return self.run(runner, calls=calls, within_s=within_s, backend="thirdparty")

    def kept(self, name: str = "one") -> dict[str, Any]:
        """Read the ``error.json`` of an experiment."""
        return dict(json.loads((self.folder / "results" / name / "error.json").read_text()))

    def file(self, name: str) -> Path:
        """Name a file that workers may write."""
        return self.folder / name


def config_of(**fields: Any) -> ExperimentConfig:
    """Make a short experiment on the scripted backend, or on the third party's."""
    if fields.get("backend") == "thirdparty":
        fields = {"model": "random:tiny-llama", "scripted": None, **fields}
    return scripted_config(**fields)


@contextlib.contextmanager
def workers(folder: Path, method: str, patch: pytest.MonkeyPatch) -> Iterator[Workers]:
    """Give workers, and see that no process outlives them."""
    made = Workers(folder, method, patch)
    before = set(psutil.Process().children(recursive=True))
    try:
        yield made
    finally:
        for runner in made.runners:
            runner.close()
        plugin_backends.cache_clear()
        sys.modules.pop("thirdparty", None)
    left = set(psutil.Process().children(recursive=True)) - before
    assert not left, f"still running: {left}"


def servers() -> list[psutil.Process]:
    """List the fork servers that this process has started."""
    children = psutil.Process().children()
    return [child for child in children if any("fork_server" in word for word in child.cmdline())]


def is_running(path: Path) -> bool:
    """Tell whether the process runs whose number a file holds; one that nobody reaped does not."""
    try:
        return psutil.Process(int(path.read_text())).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


HOST = """
import sys
from pathlib import Path
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.study.runners.local import InterpreterRunner

runner = InterpreterRunner("thirdparty", start_method={method!r})
job = runner.start(ExperimentDirectory(Path({directory!r})))
job.wait(3600)
"""


def host(each: Workers, directory: Path) -> subprocess.Popen[bytes]:
    """Start a process that runs an experiment in a worker of its own."""
    text = HOST.format(method=each.method, directory=str(directory))
    return subprocess.Popen([sys.executable, "-c", text], start_new_session=True)
