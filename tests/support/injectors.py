"""Faults that a whole tree of processes sees: a disk that hesitates, a clock that jumps."""

from __future__ import annotations

from tests.support.cli import Llem

NAP_AT = "LLEM_TEST_NAP_AT"
_SLOW_DISK = """
import os, sys, time

def hook(event, arguments):
    if event == "open" and wanted in str(arguments[0]):
        try:
            os.close(os.open(napping, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        time.sleep(3600)

wanted, napping = os.environ.get("LLEM_TEST_NAP_AT"), os.path.join(os.environ["HOME"], "napping")
if wanted:
    sys.addaudithook(hook)
"""
_JUMPING_CLOCK = """
import datetime, random, time

real_s, real_ns, real = time.time, time.time_ns, datetime.datetime
jumps_s = (-86_400, -3_600, 0, 3_600, 86_400)

class Jumping(real):
    @classmethod
    def now(cls, tz=None):
        return real.fromtimestamp(time.time(), tz)

time.time = lambda: real_s() + random.choice(jumps_s)
time.time_ns = lambda: real_ns() + random.choice(jumps_s) * 10**9
datetime.datetime = Jumping
"""


def slow_disk(llem: Llem, name: str) -> None:
    """Have the first process that opens a file of such a name fall asleep over it."""
    _install(llem, _SLOW_DISK)
    llem.environment[NAP_AT] = name


def is_napping(llem: Llem) -> bool:
    """Tell whether a process has fallen asleep."""
    return (llem.folder / "home" / "napping").exists()


def jumping_clock(llem: Llem) -> None:
    """Have the wall clock jump by hours and days between any two looks at it."""
    _install(llem, _JUMPING_CLOCK)


def _install(llem: Llem, text: str) -> None:
    llem.write("injected/sitecustomize.py", text)
    llem.source_path.insert(0, str(llem.folder / "injected"))
