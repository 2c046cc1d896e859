"""Memory of the PyTorch backend on a CPU: the figures, and what happens when it runs out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from llenergymeasure.core.backends.protocol import Request
from llenergymeasure.core.backends.shared.memory import ResidentSet
from llenergymeasure.units import MIB
from tests.support.models import load_engine, save_model

LINUX = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
PREAMBLE = """
import resource, sys
from pathlib import Path
from llenergymeasure.core.backends.protocol import Request
from llenergymeasure.exceptions import BackendError
from tests.support.models import load_engine

def leave_mb(spare):
    text = Path("/proc/self/status").read_text()
    used = int(text.split("VmSize:")[1].split()[0]) << 10
    resource.setrlimit(resource.RLIMIT_AS, (used + (spare << 20), resource.RLIM_INFINITY))

cache, model = Path(sys.argv[1]), sys.argv[2]
small = (Request(0, (5, 6, 7), 2),)
"""
GENERATE = """
engine = load_engine(cache, model=model, max_new_tokens=4, pytorch={"batch_size": 64})
engine.run((small,), 0, lambda _: None)
leave_mb(32)
try:
    engine.run((tuple(Request(n, (5,) * 1500, 4) for n in range(64)),), 0, lambda _: None)
except BackendError as error:
    print(error.where, error, sep="\\n")
"""
LOAD = """
load_engine(cache, model="random:tiny-llama").run((small,), 0, lambda _: None)
leave_mb(64)
try:
    load_engine(cache, model=f"random:{model}")
except BackendError as error:
    print(error.where, error, sep="\\n")
"""
FIGURES = """
import json
from llenergymeasure.core.backends.shared.memory import ResidentSet
from llenergymeasure.units import MIB

before_mb = ResidentSet().start_mb
engine = load_engine(cache, model=f"random:{model}")
loaded = engine.inspect().memory
weights_mb = sum(p.numel() * p.element_size() for p in engine._model.parameters()) / MIB
engine.run((tuple(Request(index, (7,) * 500, 2) for index in range(2)),), 0, lambda _: None)
worked = engine.inspect().memory
print(json.dumps({
    "kind": worked.kind, "before_mb": before_mb, "weights_mb": weights_mb,
    "loaded_mb": loaded.model_mb, "worked_mb": worked.model_mb, "peak_mb": worked.peak_mb,
}))
"""


def told_by(script: str, cache: Path, model: Path) -> str:
    """Run a script in a process of its own and give what it printed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + script, str(cache), str(model)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@LINUX
def test_running_out_of_memory_names_the_batch_size_and_what_to_lower(tmp_path):
    said = told_by(GENERATE, tmp_path, save_model(tmp_path / "model"))

    assert said.startswith("generate\n")
    assert "out of memory during generate with pytorch.batch_size 64" in said
    assert "lower pytorch.batch_size" in said


@LINUX
def test_running_out_of_memory_while_loading_names_smaller_choices(tmp_path):
    import json

    model = save_model(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    large = {"hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 4}
    (model / "config.json").write_text(json.dumps({**config, **large, "head_dim": 512}))
    said = told_by(LOAD, tmp_path, model)

    assert said.startswith("load\n")
    assert "out of memory during load" in said
    assert "smaller precision" in said


def touched(mib: int) -> bytearray:
    return bytearray(b"\1") * (mib * MIB)


@LINUX
def test_a_peak_before_the_watch_began_does_not_count():
    before = touched(300)
    del before
    watch = ResidentSet()

    assert watch.peak_mb() < watch.start_mb + 100


@LINUX
def test_a_peak_that_has_passed_is_remembered():
    watch = ResidentSet()
    passing = touched(200)
    del passing

    assert watch.start_mb + 190 < watch.peak_mb() < watch.start_mb + 300


@LINUX
def test_the_model_is_in_its_own_figure_and_the_kv_cache_in_the_peak(tmp_path):
    shape = save_model(tmp_path / "shape", intermediate_size=32_768)
    # A process that has run other models has memory to give back, which hides what this one takes.
    seen = json.loads(told_by(FIGURES, tmp_path, shape))
    activations_mb = 2 * 500 * 32_768 * 4 / MIB

    assert seen["kind"] == "resident_set"
    assert seen["loaded_mb"] - seen["before_mb"] > 0.9 * seen["weights_mb"] > 40
    assert seen["worked_mb"] == seen["loaded_mb"]
    assert seen["peak_mb"] - seen["loaded_mb"] > 0.9 * activations_mb


def test_closing_lets_go_of_the_model(tmp_path):
    engine = load_engine(tmp_path, model="random:tiny-llama")
    engine.run(((Request(0, (7, 7), 2),),), 0, lambda _: None)
    model = weakref.ref(engine._model)
    engine.close()

    assert model() is None
