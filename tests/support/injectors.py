"""Faults that a whole tree of processes sees: a disk that hesitates, a clock that jumps."""

from __future__ import annotations

import shutil
import subprocess

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
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long jump(void) {
    static const long jumps[] = {-86400, -3600, 0, 3600, 86400};
    static unsigned calls;
    return jumps[(calls++ * 7 + getpid()) % 5];
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int done = syscall(SYS_clock_gettime, clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += jump();
    return done;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (out) *out = exact.tv_sec;
    return exact.tv_sec;
}
"""
_JUMPING_TIME = """
import random, time

real_s, real_ns, jumps_s = time.time, time.time_ns, (-86_400, -3_600, 0, 3_600, 86_400)
time.time = lambda: real_s() + random.choice(jumps_s)
time.time_ns = lambda: real_ns() + random.choice(jumps_s) * 10**9
"""


def slow_disk(llem: Llem, name: str) -> None:
    """Have the first process that opens a file of such a name fall asleep over it."""
    _install(llem, _SLOW_DISK)
    llem.environment[NAP_AT] = name


def healed_disk(llem: Llem) -> None:
    """Let the disk be as quick again as it was."""
    llem.environment.pop(NAP_AT, None)
    llem.source_path[:] = [path for path in llem.source_path if path != _place(llem)]


def is_napping(llem: Llem) -> bool:
    """Tell whether a process has fallen asleep."""
    return (llem.folder / "home" / "napping").exists()


def jumping_clock(llem: Llem) -> bool:
    """Have the wall clock jump by hours and days between any two looks at it.

    Returns:
        Whether all of a process sees it, native code included. Without a C compiler only those do
        who ask the module ``time``.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        _install(llem, _JUMPING_TIME)
        return False
    source = llem.write("injected/clock.c", _JUMPING_CLOCK)
    library = source.with_suffix(".so")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    # By its name: a path in LD_PRELOAD ends at a space.
    llem.environment |= {"LD_PRELOAD": library.name, "LD_LIBRARY_PATH": str(library.parent)}
    return True


def _install(llem: Llem, text: str) -> None:
    llem.write("injected/sitecustomize.py", text)
    llem.source_path.insert(0, _place(llem))


def _place(llem: Llem) -> str:
    return str(llem.folder / "injected")
