"""Encyclopaedic passages."""

from __future__ import annotations

import random
from collections.abc import Sequence

from mixed_1k.fitting import count_words
from mixed_1k.passages import Draft, PassageWriter, Usage
from mixed_1k.source import Record, Scene, read_records

FILES = [
    "animals",
    "plants_food",
    "materials",
    "places",
    "inventions",
    "history",
    "arts_sports",
    "science",
    "society",
    "body",
]
SHORT_LIMIT = 13
UNTITLED_THEME = "The human body and mind"
PROPER_NAMES = frozenset(
    [
        "Mount Everest",
        "Kilimanjaro",
        "Iceland",
        "Madagascar",
        "Venice",
        "Istanbul",
        "Kyoto",
        "Cairo",
        "Lake Baikal",
        "Roman roads",
        "Apollo 11",
        "Magna Carta",
        "Machu Picchu",
        "Pompeii",
        "Mars",
        "Jupiter",
        "Saturn",
        "DNA",
    ]
)
TITLE_PATTERNS = (
    "History of {}",
    "Notes on {}",
    "{}: an overview",
    "{}: history and significance",
    "Origins and early history of {}",
    "A short introduction to {}",
    "Further reading on {}",
    "Common questions about the origin of {}",
    "Myths about {}",
    "{} in brief",
    "Glossary of terms related to {}",
    "{} in art and literature",
    "Selected sources on the history of {}",
    "Ten little-known facts about {}",
    "{} from early times to the present day",
)


def load_fact_records() -> list[Record]:
    """Return all records with encyclopaedic facts."""
    return [record for name in FILES for record in read_records(f"facts/{name}.txt")]


def possessive(name: str) -> str:
    """Return the possessive form of a name."""
    return f"{name}'" if name.endswith("s") else f"{name}'s"


def capitalise(text: str) -> str:
    """Return `text` with its first letter in upper case."""
    return text[0].upper() + text[1:]


def inner_name(record: Record) -> str:
    """Return the name of the subject as it is written within a sentence."""
    if record.subject in PROPER_NAMES:
        return record.subject
    return record.subject[0].lower() + record.subject[1:]


def name_subject(record: Record, line: str) -> str:
    """Return `line` with a pronoun at its start replaced by the name of the subject."""
    first, _, rest = line.partition(" ")
    if first == record.pronoun:
        return f"{record.subject} {rest}"
    if first == {"It": "Its", "They": "Their"}.get(record.pronoun):
        return f"{possessive(record.subject)} {rest}"
    return line


def join_facts(record: Record, lines: Sequence[str], _rng: random.Random) -> str:
    """Join fact sentences, naming the subject wherever a pronoun would be unclear."""
    joined: list[str] = []
    clear = False
    for line in lines:
        text = line if clear else name_subject(record, line)
        joined.append(text)
        clear = text.startswith((record.subject, f"{record.pronoun} "))
    return " ".join(joined)


def no_heading(_record: Record, _scene: Scene, _rng: random.Random) -> list[str]:
    """Leave the passage without a heading."""
    return []


def title_heading(record: Record, _scene: Scene, _rng: random.Random) -> list[str]:
    """Put the title of the record on a line of its own."""
    return [record.title]


def wiki_heading(record: Record, _scene: Scene, _rng: random.Random) -> list[str]:
    """Mark the title of the record as a wiki section."""
    return [f"== {record.title} =="]


class Encyclopaedia:
    """Writer of encyclopaedic prompts."""

    def __init__(self, usage: Usage) -> None:
        """Load the facts and prepare one writer per heading style."""
        self.records = load_fact_records()
        headings = (no_heading, title_heading, title_heading, wiki_heading)
        self.writers = [
            PassageWriter(self.records, usage, heading, join_facts) for heading in headings
        ]
        self._short_texts = [*self._titles(), *self._short_facts()]

    def write(self, target: int, rng: random.Random) -> Draft:
        """Return an encyclopaedic text of about `target` words."""
        fitting = [text for text in self._short_texts if count_words(text) == target]
        if target <= SHORT_LIMIT and fitting:
            return Draft(rng.choice(fitting), ())
        heading_fits = target > 60
        writer = rng.choice(self.writers) if heading_fits else self.writers[0]
        return writer.write(target, rng)

    def _titles(self) -> list[str]:
        records = [record for record in self.records if record.theme != UNTITLED_THEME]
        names = [record.title for record in records if " " in record.title]
        return names + [
            capitalise(pattern.format(inner_name(record)))
            for record in records
            for pattern in TITLE_PATTERNS
        ]

    def _short_facts(self) -> list[str]:
        facts = [
            name_subject(record, line.replace("~", record.subject))
            for record in self.records
            for line in record.lines
            if line.startswith((f"{record.pronoun} ", "~"))
        ]
        return [fact for fact in facts if count_words(fact) <= SHORT_LIMIT] * 4
