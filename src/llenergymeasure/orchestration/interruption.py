"""An interrupt that is not lost when the code that it breaks into swallows it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Remembers that a signal came, beside what its handler does.

    The handler raises ``KeyboardInterrupt`` wherever the program happens to be. Extension modules
    that are being imported, finalisers and callbacks swallow it; :meth:`check` raises it again.

    Attributes:
        seen: Whether one came.
    """

    def __init__(self) -> None:
        self.seen = False

    def check(self) -> None:
        """Raise ``KeyboardInterrupt`` if a signal has come."""
        if self.seen:
            raise KeyboardInterrupt

    @contextmanager
    def noticed(self) -> Iterator[None]:
        """Take note inside the block; only the main thread gets signals."""
        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            before = {number: signal.getsignal(number) for number in _SIGNALS}

        def handle(number: int, frame: FrameType | None) -> None:
            self.seen = True
            chained[number](number, frame)

        chained = {number: handler for number, handler in before.items() if callable(handler)}
        for number in chained:
            signal.signal(number, handle)
        try:
            yield
        finally:
            for number, handler in chained.items():
                signal.signal(number, handler)
