"""Notes of a study that the closing table tells in brief, and ``study_summary.json`` in full."""

from __future__ import annotations

_DIFFERENCE = "engines differ in "


def difference(about: str, told: str) -> str:
    """Write the note on one thing that engines do each in their own way."""
    return f"{_DIFFERENCE}{about}: {told}"


def difference_about(note: str) -> str | None:
    """Tell what a note on a difference of engines is about; ``None`` for any other note."""
    if not note.startswith(_DIFFERENCE):
        return None
    return note.removeprefix(_DIFFERENCE).partition(": ")[0]
