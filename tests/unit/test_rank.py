"""A process that shares an experiment's prompts, without the process."""

from __future__ import annotations

import json
import queue
import threading
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from llenergymeasure.core.backends.scripted.engine import ScriptedBackend
from llenergymeasure.orchestration.executor import LocalExecutor, Share
from llenergymeasure.orchestration.rank import CommandLoop, Teller
from llenergymeasure.results.persistence import read_process
from tests.support.scripted_run import make_order, scripted_config


def test_samples_that_the_directory_does_not_take_are_left_elsewhere_and_it_is_told(
    tmp_path: Path,
) -> None:
    ours, theirs = Pipe()
    teller = Teller(theirs)
    order = make_order(scripted_config(), tmp_path)
    executor = LocalExecutor(ScriptedBackend(), order, teller, Share(0, 2))
    inbox: queue.SimpleQueue[str] = queue.SimpleQueue()
    for command in (["load"], ["prepare"], ["run_pass", "measure", 5], ["collect"]):
        inbox.put(json.dumps(command))
    loop = CommandLoop(executor, teller, theirs, tmp_path / "gone" / "process_0.json")
    serving = threading.Thread(target=loop.serve, args=(inbox,))
    serving.start()

    done: list[Any] = []
    while len(done) < 5:  # the first is that it listens
        word, value = ours.recv()
        done += [value] if word == "done" else []
    report, path = done[-1]
    assert report.weights == "none"
    assert [one.request for one in read_process(Path(path)).requests] == [0, 2]
    inbox.put(json.dumps(["stop"]))
    serving.join(60)
    assert not Path(path).parent.exists()
