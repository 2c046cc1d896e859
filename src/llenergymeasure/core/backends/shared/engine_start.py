"""Breaks off a wait for processes that are gone.

An engine that waits for its processes may not see that they have ended: vLLM swallows Ctrl-C at a
moment of its start, when the same Ctrl-C has ended the processes, and then waits for ten minutes.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNAL = signal.SIGALRM
_LOOK_EVERY_S = 1.0
_LOOKS = 5  # in which the engine may see it by itself, and say why


@contextmanager
def not_without_processes(all_ended: Callable[[], bool]) -> Iterator[None]:
    """Raise inside the block once its processes have ended, and it does not take note.

    Only the main thread can be broken into; in another the block is left alone.

    Args:
        all_ended: Tells whether processes have ended, unnoticed, and none is running.

    Raises:
        RuntimeError: They have, and the block goes on waiting.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(all_ended, over), daemon=True)
    before = signal.signal(_SIGNAL, _break_off)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()
        signal.signal(_SIGNAL, before)


def _watch(all_ended: Callable[[], bool], over: threading.Event) -> None:
    looks = 0
    while not over.wait(_LOOK_EVERY_S):
        looks = looks + 1 if all_ended() else 0
        if looks == _LOOKS:
            signal.pthread_kill(threading.main_thread().ident or 0, _SIGNAL)
            return


def _break_off(_number: int, _frame: FrameType | None) -> None:
    raise RuntimeError("every process of the engine ended while it was starting")
