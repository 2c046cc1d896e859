"""A made-up tree of control groups, as Linux shows them to a process."""

from __future__ import annotations

from pathlib import Path

V1_MEMORY = "cgroup:memory:/sys/fs/cgroup/memory"
V1_CPU = "cgroup:cpu,cpuacct:/sys/fs/cgroup/cpu,cpuacct"
V2 = "cgroup2::/sys/fs/cgroup"


def write_tree(
    root: Path, cgroup: str, mounts: dict[str, str], files: dict[str, str | int]
) -> Path:
    """Write what a process sees.

    Args:
        root: Where to.
        cgroup: Its ``/proc/self/cgroup``.
        mounts: What is mounted, as ``kind:controllers:place``, and the group that shows there.
        files: Files below the root, with what they hold.
    """
    lines = ["22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw"]
    for number, (mount, top) in enumerate(mounts.items(), start=30):
        kind, controllers, place = mount.split(":")
        options = f"rw,{controllers}" if controllers else "rw,nsdelegate"
        lines.append(f"{number} 22 0:{number} {top} {place} rw,nosuid - {kind} cgroup {options}")
    written = {"proc/self/cgroup": cgroup, "proc/self/mountinfo": "\n".join(lines), **files}
    for name, text in written.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root
