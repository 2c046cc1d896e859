"""Web texts: reviews, how-tos, recipes, travel notes, news, forum threads, blogs, notices."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from mixed_1k.fitting import count_words
from mixed_1k.passages import Draft, PassageWriter, Usage
from mixed_1k.source import Record, Scene, read_lines, read_records

FILES = ["reviews", "howto", "recipes", "travel", "news", "forum", "blog", "about_notices"]
SHORT_LIMIT = 13
LEAST_COVERAGE = 0.72
INSTRUCTIONS = ("Step by step at home", "From our kitchen")
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
HANDLES = [
    "mossy_bike",
    "oldkettle",
    "tramline77",
    "pebble_jo",
    "north_window",
    "fern42",
    "slowbread",
    "hazelnut_k",
    "bluepencil",
    "rainyday_ed",
    "lowtide",
    "gravelpath",
    "corner_seat",
    "teapot9",
    "quietowl",
    "inkwell",
    "mapfold",
]
BYLINES = {
    "Product reviews": ("Review by $name", "Rated {three|four|five} stars by $name"),
    "Notes from a blog": ("Posted by $name", "Written by $name, {two|three|four} minutes to read"),
    "Local news": ("$town, $date", "Report from $town, $date"),
    "Travel notes": ("Travel diary of $name", "Text and pictures: $name"),
    "From our kitchen": ("Serves {two|four|six}", "Recipe sent in by $name"),
}
FORUM = "From the forum"


def load_web_records() -> list[Record]:
    """Return all records with web texts."""
    return [record for name in FILES for record in read_records(f"web/{name}.txt")]


def web_heading(record: Record, scene: Scene, rng: random.Random) -> list[str]:
    """Return the title and, often, a by-line."""
    lines = [scene.fill(record.title)]
    patterns = BYLINES.get(record.theme)
    if patterns and rng.random() < 0.6:
        date = f"{rng.randint(1, 28)} {rng.choice(MONTHS)}"
        lines.append(scene.fill(rng.choice(patterns)).replace("$date", date))
    return lines


def join_paragraphs(record: Record, lines: Sequence[str], rng: random.Random) -> str:
    """Join sentences into one or two paragraphs, and forum posts into a thread."""
    if record.theme == FORUM:
        return join_thread(lines, rng)
    if len(lines) < 6 or rng.random() < 0.4:
        return " ".join(lines)
    middle = len(lines) // 2
    return " ".join(lines[:middle]) + "\n" + " ".join(lines[middle:])


def join_thread(lines: Sequence[str], rng: random.Random) -> str:
    """Give every post of a thread its author, the first of whom may answer at the end."""
    authors = rng.sample(HANDLES, len(lines))
    return "\n".join(f"{author}: {line}" for author, line in zip(authors, lines, strict=True))


def web_writers(records: Sequence[Record], usage: Usage) -> list[PassageWriter]:
    """Return a writer for accounts and one for instructions, which need most of their steps."""
    steps = [record for record in records if record.theme in INSTRUCTIONS]
    accounts = [record for record in records if record.theme not in INSTRUCTIONS]
    return [
        PassageWriter(accounts, usage, web_heading, join_paragraphs, 0.75),
        PassageWriter(steps, usage, web_heading, join_paragraphs, 1.0, math.ceil),
    ]


class Web:
    """Writer of web texts."""

    def __init__(self, usage: Usage) -> None:
        """Load the records and the headlines."""
        self.records = load_web_records()
        self._writers = web_writers(self.records, usage)
        self._headlines = read_lines("web/headlines.txt")

    def write(self, target: int, rng: random.Random) -> Draft:
        """Return a web text of about `target` words."""
        fitting = self._titles(target, rng) if target <= SHORT_LIMIT else []
        if fitting:
            return Draft(rng.choice(fitting), ())
        weights = (3, 2) if self._steps_fit(target) else (1, 0)
        return rng.choices(self._writers, weights)[0].write(target, rng)

    def _steps_fit(self, target: int) -> bool:
        """Tell whether instructions of this length would keep most of their steps."""
        steps = [record.words for record in self.records if record.theme in INSTRUCTIONS]
        full = target * len(steps) / sum(steps)
        return full / math.ceil(full) >= LEAST_COVERAGE

    def _titles(self, target: int, rng: random.Random) -> list[str]:
        scene = Scene(rng)
        titles = [scene.fill(record.title) for record in self.records]
        return [text for text in titles + self._headlines if count_words(text) == target]
