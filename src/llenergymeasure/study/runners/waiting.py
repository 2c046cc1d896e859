"""Waiting for a job that has to end within a time."""

from __future__ import annotations

from llenergymeasure.study.runners.protocol import Job


def ended_within(job: Job, within_s: float) -> int | None:
    """Give the exit code; ``None`` for what took longer and was killed."""
    try:
        code = job.wait(within_s)
    except KeyboardInterrupt:
        job.kill()
        raise
    if code is None:
        job.kill()
    return code
