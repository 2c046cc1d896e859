"""Studies run by the command, on backends that take milliseconds or misbehave."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llenergymeasure.results.layout import StudyDirectory
from llenergymeasure.study.events import ProgressLine, read_progress
from tests.support.cli import Llem

NO_GAPS = "config_gap_seconds: 0, cycle_gap_seconds: 0"
SCRIPTED = """
name: {name}
model: m
backend: scripted
energy_backend: none
n: 2
max_new_tokens: 2
warmup: {{n_warmup: 0}}
scripted: {{ttft_ms: 1, itl_ms: 1}}
sweep: {{{sweep}}}
execution: {{n_cycles: {cycles}, cycle_order: interleaved, {execution}}}
"""
MISBEHAVING = """
name: mixed
model: random:tiny-llama
backend: thirdparty
energy_backend: none
n: 1
max_new_tokens: 2
warmup: {{n_warmup: 0}}
sweep: {{thirdparty.shout: [{shouts}]}}
execution: {{n_cycles: {cycles}, cycle_order: interleaved, {execution}}}
"""
BACKEND = """
import ctypes, os, shutil, signal, subprocess, sys, time
from pathlib import Path


def nap(name):
    Path(name).touch()
    time.sleep(3600)


class Backend(ScriptedBackend):
    def load(self, config, cache_dir):
        shout = config.section.shout
        if shout != "well" and not Path("mended").exists():
            print("about to", shout, flush=True)
            {ways}
        return super().load(config, cache_dir)
"""
WAYS = {
    "kill": "os.kill(os.getpid(), signal.SIGKILL)",
    "crash": "ctypes.string_at(0)",
    "leave": "os._exit(0)",
    "hang": "nap('hanging')",
    "garble": "log = Path(os.readlink('/proc/self/fd/1'))\n"
    "                log.with_name('result.json').write_text('{\"half\": ')\n"
    "                os._exit(0)",
    "erase": "log = Path(os.readlink('/proc/self/fd/1'))\n"
    "                for other in log.parent.parent.glob('0001_*/result.json'):\n"
    "                    other.unlink()",
    "refuse": "raise RuntimeError('no such driver')",
    "vanish": "shutil.rmtree(Path(os.readlink('/proc/self/fd/1')).parent)",
    "vanish and refuse": "shutil.rmtree(Path(os.readlink('/proc/self/fd/1')).parent)\n"
    "                raise RuntimeError('no such driver')",
    "vanish with all": "shutil.rmtree(Path(os.readlink('/proc/self/fd/1')).parents[3])",
    "remount": "line = 'mount --bind disk disk && mount -o remount,ro,bind disk'\n"
    "                subprocess.run(line, shell=True, check=True)",
}
"""What a load can come to, by the word in ``thirdparty.shout`` that asks for it."""


def scripted_study(
    llem: Llem,
    sweep: str = "random_seed: [1, 2]",
    *,
    cycles: int = 1,
    execution: str = NO_GAPS,
    name: str = "sizes",
    more: str = "",
) -> str:
    """Write the YAML of a study whose experiments take some milliseconds each."""
    text = SCRIPTED.format(name=name, sweep=sweep, cycles=cycles, execution=execution)
    return str(llem.write("study.yaml", text + more))


def misbehaving_study(llem: Llem, *shouts: str, cycles: int = 1, execution: str = NO_GAPS) -> str:
    """Install a backend that does what ``shout`` says, and write a study of such shouts."""
    lines = [f"if shout == {name!r}:\n                {way}" for name, way in WAYS.items()]
    llem.plugin(BACKEND.format(ways="\n            ".join(lines)))
    text = MISBEHAVING.format(shouts=", ".join(shouts), cycles=cycles, execution=execution)
    return str(llem.write("study.yaml", text))


@dataclass(frozen=True)
class Left:
    """What a study has left on disk.

    Attributes:
        study: Its directory.
    """

    study: StudyDirectory

    @classmethod
    def by(cls, llem: Llem, folder: str = "results") -> Left:
        """Find the one study below a folder."""
        (manifest,) = (llem.folder / folder).glob("*/study_manifest.json")
        return cls(StudyDirectory(manifest.parent))

    @property
    def path(self) -> str:
        """Where it lies."""
        return str(self.study.root)

    @property
    def resume_line(self) -> str:
        """The way on, as the command tells it."""
        return f"go on with: llem run --resume {self.study.root.parent.name}/{self.study.root.name}"

    @property
    def results(self) -> dict[str, bytes]:
        """The results in place, by the name of their directory."""
        found = self.study.experiments.glob("*/result.json")
        return {path.parent.name: path.read_bytes() for path in found}

    @property
    def errors(self) -> dict[str, dict[str, Any]]:
        """The failures in place, by the name of their directory."""
        found = self.study.experiments.glob("*/error.json")
        return {path.parent.name: json.loads(path.read_bytes()) for path in sorted(found)}

    @property
    def summary(self) -> dict[str, Any]:
        """``study_summary.json``."""
        return dict(json.loads(self.study.summary.read_bytes()))

    @property
    def progress(self) -> tuple[ProgressLine, ...]:
        """The diary."""
        return read_progress(self.study.progress)

    def statuses(self, slot: int) -> list[str]:
        """List what the diary says of one slot."""
        return [line.status for line in self.progress if line.slot == slot]

    def names(self, experiment: str) -> set[str]:
        """Name the files of an experiment, by its place in the study."""
        (directory,) = self.study.experiments.glob(f"{experiment}_*")
        return {path.name for path in directory.iterdir()}

    def phases(self) -> list[str]:
        """List the phases that experiments have come to."""
        found = sorted(self.study.experiments.glob("*/events.jsonl"))
        lines = [line for path in found for line in path.read_text().splitlines()]
        return [json.loads(line)["phase"] for line in lines if line.endswith("}")]


def in_phase(llem: Llem, phase: str, folder: str = "results") -> bool:
    """Tell whether an experiment of a study that may not be there yet has come to a phase."""
    pattern = "*/experiments/*/events.jsonl"
    return any(f'"{phase}"' in path.read_text() for path in (llem.folder / folder).glob(pattern))


def leftovers(folder: Path) -> list[str]:
    """Name what could be taken for half a result."""
    return [str(path) for path in folder.rglob("*.tmp")]
