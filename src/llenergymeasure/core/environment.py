"""Capture what an experiment runs on: machine, GPUs, software, and who keeps the CPUs busy.

Nothing heavy is imported. What the kernel counts as busy (``/proc/stat``), less what the processes
of the experiment spent themselves, is the work of others. In a container the kernel's figures are
usually those of the whole machine, which is what decides how fast and how hot it is.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import psutil

from llenergymeasure._version import __version__
from llenergymeasure.config.registry import all_backends
from llenergymeasure.config.secrets import redact, redacted
from llenergymeasure.core.allowance import allowance
from llenergymeasure.core.gpu_survey import GPUSurvey, survey_gpus
from llenergymeasure.domain.environment import EnvironmentSnapshot
from llenergymeasure.domain.results import CPULoad
from llenergymeasure.units import MIB

IMAGE_VARIABLE = "LLEM_CONTAINER_IMAGE"
"""Environment variable through which whoever starts a container tells the digest of its image."""

LEAST_S = 1.0  # the kernel counts in steps of 10 ms, for each CPU and for each process
_CPUINFO = Path("/proc/cpuinfo")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PACKAGE = Path(__file__).parents[1]


def capture(
    site: Mapping[str, Any] | None = None,
    *,
    gpus: Callable[[], GPUSurvey] = survey_gpus,
    environ: Mapping[str, str] | None = None,
) -> EnvironmentSnapshot:
    """Describe the machine and the software; what cannot be found out is ``None``.

    Args:
        site: Carbon intensity and power usage effectiveness in force, by the fields of the record.
        gpus: Lists the GPUs.
        environ: Environment variables; by default the process's own.
    """
    survey, installed, allowed = gpus(), software(), allowance()
    return EnvironmentSnapshot(
        captured_at=datetime.now().astimezone().isoformat(timespec="seconds"),
        python_version=platform.python_version(),
        os=operating_system(),
        cpu_model=cpu_model(),
        cpu_count=psutil.cpu_count(),
        cpu_count_usable=allowed.cpus,
        cpu_quota=allowed.cpu_quota,
        ram_mb=psutil.virtual_memory().total / MIB,
        memory_limit_mb=allowed.memory_mb if allowed.memory_by else None,
        memory_limit_by=allowed.memory_by,
        gpus=survey.gpus,
        gpu_note=survey.note,
        driver_version=survey.driver_version,
        cuda_version=survey.cuda_version,
        engine_versions=engine_versions(installed.versions),
        llenergymeasure_version=__version__,
        git_commit=installed.git_commit,
        packages=dict(installed.packages),
        container_image=(os.environ if environ is None else environ).get(IMAGE_VARIABLE),
        **(site or {}),
    )


class Software(NamedTuple):
    """What this process can import.

    Attributes:
        versions: Version of every distribution.
        packages: The same, with where it was installed from when that was not an index.
        git_commit: Commit of the checkout that this package runs from.
    """

    versions: Mapping[str, str]
    packages: Mapping[str, str]
    git_commit: str | None


def software() -> Software:
    """List what is installed; it is read again only after a folder of the import path changed."""
    changed_ns: list[int | None] = []
    for folder in sys.path:
        try:
            changed_ns.append(os.stat(folder or ".").st_mtime_ns)  # noqa: PTH116 - of sys.path
        except OSError:
            changed_ns.append(None)
    return _software(tuple(changed_ns))


@functools.lru_cache(maxsize=1)
def _software(_stamp: tuple[int | None, ...]) -> Software:
    versions = installed_versions(importlib.metadata.distributions())
    packages = with_origins(versions, importlib.metadata.distributions())
    return Software(versions, packages, git_commit())


class CPUTimes(NamedTuple):
    """Seconds of CPU time since some moment, summed over CPUs.

    Attributes:
        total_s: Of all CPUs, idle or not.
        busy_s: In which they worked.
        own_s: In which they worked for this process and its descendants.
    """

    total_s: float
    busy_s: float
    own_s: float


def read_cpu_times() -> CPUTimes | None:
    """Read the counters of the kernel; ``None`` where they cannot be read.

    It takes some milliseconds, so this is no business of a measured window.
    """
    this, own_s = psutil.Process(), 0.0
    try:
        for process in (this, *this.children(recursive=True)):
            # With what its children that have ended spent. The time of one that has just ended is
            # in that of its parent.
            with contextlib.suppress(psutil.NoSuchProcess):
                spent = process.cpu_times()
                own_s += spent.user + spent.system + spent.children_user + spent.children_system
        times = psutil.cpu_times()._asdict()
    except (psutil.Error, OSError):
        return None
    # A guest's time is in that of its user; stolen time no process of this machine had.
    total_s = sum(seconds for name, seconds in times.items() if not name.startswith("guest"))
    rest_s = sum(times.get(name, 0.0) for name in ("idle", "iowait", "steal"))
    return CPUTimes(total_s, total_s - rest_s, own_s)


def cpu_load(before: CPUTimes | None, after: CPUTimes | None, elapsed_s: float) -> CPULoad | None:
    """Share the work between two readings out; ``None`` where it is not known or too short."""
    if before is None or after is None or elapsed_s < LEAST_S:
        return None
    total_s = after.total_s - before.total_s
    if total_s <= 0:
        return None
    own_s, busy_s = after.own_s - before.own_s, after.busy_s - before.busy_s
    # Both are counted in steps, so a difference below zero is none.
    return CPULoad(own_share=own_s / total_s, other_share=max(0.0, busy_s - own_s) / total_s)


def operating_system() -> str:
    """Name distribution, kernel and machine, e.g. ``Debian GNU/Linux 12, Linux 6.1.0 x86_64``."""
    kernel = f"{platform.system()} {platform.release()} {platform.machine()}"
    with contextlib.suppress(OSError):
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    return kernel


def cpu_model(cpuinfo: Path = _CPUINFO) -> str | None:
    """Name the CPU as the kernel does; ``None`` where it names none, as on most Arm machines."""
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(\S.*)$", cpuinfo.read_text(), re.M)
        return found[1].strip() if found else None
    return None


def boot_id(path: Path = _BOOT_ID) -> str:
    """Tell this machine since it started from every other one, from inside a container too.

    By the kernel's own id (proc_sys_kernel(5), random/boot_id); the name of the host without.
    """
    with contextlib.suppress(OSError):
        return path.read_text().strip()
    return platform.node()


def git_commit(package: Path = _PACKAGE) -> str | None:
    """Name the commit of the checkout a package runs from; ``None`` where it is installed.

    Only ``src/<package>`` right inside a checkout counts: an environment that lies in somebody
    else's repository must not report that repository's commit.
    """
    root = package.parent.parent
    if package.parent.name != "src" or not (root / ".git").exists():
        return None
    # An explicit directory wins over GIT_DIR, which a hook that started us may have set.
    command = ["git", f"--git-dir={root / '.git'}", "rev-parse", "--verify", "HEAD"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=1, check=True)  # noqa: S603 - fixed command
        return done.stdout.strip() or None
    return None


def installed_versions(distributions: Iterable[importlib.metadata.Distribution]) -> dict[str, str]:
    """Map every distribution to its version, sorted by name.

    Of two with one name the first counts, as it does for imports. Reads the two header lines only:
    parsing whole metadata takes twenty times as long.
    """
    found: dict[str, str] = {}
    for distribution in distributions:
        text = _file(distribution, "METADATA") or _file(distribution, "PKG-INFO")
        name, version = _header("Name", text), _header("Version", text)
        if name and version:
            found.setdefault(name, version)
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def engine_versions(versions: Mapping[str, str]) -> dict[str, str]:
    """Pick the inference engines from all installed distributions."""
    normalised = {re.sub(r"[-_.]+", "-", name).lower(): versions[name] for name in versions}
    engines = [name for facts in all_backends().values() for name in facts.distributions]
    return {name: normalised[name] for name in engines if name in normalised}


def with_origins(
    versions: Mapping[str, str], distributions: Iterable[importlib.metadata.Distribution]
) -> dict[str, str]:
    """Add to each version where it was installed from, when that was not an index.

    The origin is the ``direct_url.json`` of PEP 610. No credential in any part of it is told.
    """
    origins: dict[str, str] = {}
    for distribution in distributions:
        text = _file(distribution, "direct_url.json")
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            told = json.loads(text)
            commit = told.get("vcs_info", {}).get("commit_id")
            editable = "editable, " if told.get("dir_info", {}).get("editable") else ""
            address = without_credentials(told["url"])
            origins[distribution.name] = f"{editable}{address}{f'@{commit}' if commit else ''}"
    told = {
        name: f"{version} ({origins[name]})" if name in origins else version
        for name, version in versions.items()
    }
    return dict(redacted(told))


def without_credentials(url: str) -> str:
    """Strip user, password, query and fragment from an address, and tokens from its path."""
    try:
        parts = urlsplit(redact(url))
    except ValueError:
        return "unreadable address"
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def _file(distribution: importlib.metadata.Distribution, name: str) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):  # somebody else's broken package
        return distribution.read_text(name) or ""
    return ""


def _header(name: str, text: str) -> str | None:
    found = re.search(rf"^{name}: *(\S.*)$", text, re.M)
    return found[1].strip() if found else None
