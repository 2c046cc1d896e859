"""The report: one JSON object, without anything that tells whose machine it was."""

from __future__ import annotations

import getpass
import hashlib
import json
import platform
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from gpu_check.plan import Outcome, Section

SCHEMA_VERSION = "1.0"
ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = "environment"
NO_NAME = {"root", "user", "localhost", ""}  # telling nothing, and part of many a word
_UUID = re.compile(r"(GPU|MIG)-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class Finished(NamedTuple):
    """A section that was run.

    Attributes:
        section: Which one.
        outcome: What came of it.
        seconds: How long it took.
    """

    section: Section
    outcome: Outcome
    seconds: float

    @property
    def good(self) -> bool:
        """Whether it leaves the whole check well."""
        status = self.outcome.status
        return status == "ok" or (status == "skipped" and self.section.optional)


def make_report(finished: Sequence[Finished], started_at: datetime) -> dict[str, Any]:
    """Put together what was found so far."""
    found = {one.section.name: one.outcome.figures for one in finished}
    return {
        "schema_version": SCHEMA_VERSION,
        "started_at": started_at.isoformat(timespec="seconds"),
        "seconds": round(sum(one.seconds for one in finished), 1),
        "ok": bool(finished) and all(one.good for one in finished),
        ENVIRONMENT: found.get(ENVIRONMENT) or None,
        "sections": {one.section.name: _entry(one) for one in finished},
    }


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write a report, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    scratch.write_text(anonymous(json.dumps(report, indent=2)) + "\n", encoding="utf-8")
    scratch.replace(path)


def report_name(report: dict[str, Any]) -> str:
    """Name a report by its GPU and day."""
    gpus = (report[ENVIRONMENT] or {}).get("gpus") or [{"name": "no-gpu"}]
    bare = re.sub(r"[^A-Za-z0-9]+", "-", gpus[0]["name"]).strip("-").lower()
    return f"{bare}_{report['started_at'][:10]}.json"


def anonymous(text: str) -> str:
    """Hash the UUIDs of GPUs, and take out who ran this, where, and on which machine."""
    text = _UUID.sub(lambda found: hashed(found[0]), text)
    for secret, public in _names():
        text = re.sub(rf"(?<![\w.-]){re.escape(secret)}(?![\w-])", public, text)
    return text


def hashed(uuid: str) -> str:
    """Give a name for a GPU that tells one from another and nothing else."""
    return f"{uuid[:3]}-{hashlib.sha256(uuid.lower().encode()).hexdigest()[:12]}"


def now() -> datetime:
    """Give the time of the wall clock, with its offset."""
    return datetime.now(UTC).astimezone()


def _entry(one: Finished) -> dict[str, Any]:
    figures = {} if one.section.name == ENVIRONMENT else one.outcome.figures
    return {
        "status": one.outcome.status,
        "reason": one.outcome.reason,
        "seconds": round(one.seconds, 1),
        "limit_s": one.section.limit_s,
        "figures": figures,
    }


def _names() -> Iterator[tuple[str, str]]:
    yield str(ROOT), "<checkout>"
    yield str(Path.home()), "~"
    for secret, public in ((platform.node(), "<host>"), (getpass.getuser(), "<user>")):
        if secret.lower() not in NO_NAME:
            yield secret, public
