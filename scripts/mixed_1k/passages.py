"""Composition of texts of a given length from the sentences of several records."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mixed_1k.fitting import choose_lines, count_words
from mixed_1k.source import Record, Scene

ATTEMPTS = 30
Heading = Callable[[Record, Scene, random.Random], list[str]]
Joiner = Callable[[Record, Sequence[str], random.Random], str]


@dataclass
class Usage:
    """How often each source line has been used in accepted prompts."""

    counts: Counter[str] = field(default_factory=Counter)

    def load(self, record: Record) -> float:
        """Return the mean number of uses of the lines of a record."""
        return sum(self.counts[line] for line in record.lines) / len(record.lines)


@dataclass(frozen=True)
class Draft:
    """A composed text and the source lines that went into it."""

    text: str
    lines: tuple[str, ...]

    @property
    def words(self) -> int:
        """Number of words in the text."""
        return count_words(self.text)


@dataclass(frozen=True)
class Candidate:
    """A source line that may enter the text."""

    section: int
    template: str
    text: str


@dataclass
class PassageWriter:
    """Writes passages about one or several records of the same theme."""

    records: Sequence[Record]
    usage: Usage
    heading: Heading
    join: Joiner
    density: float = 0.6
    round_count: Callable[[float], int] = round
    line_cap: int = 11

    def write(self, target: int, rng: random.Random) -> Draft:
        """Return a passage of `target` words, or the closest one found."""
        picked = self._pick_records(target, rng)
        best: Draft | None = None
        shift = 0
        for _ in range(ATTEMPTS):
            draft = self._attempt(picked, target, shift, rng)
            error = target - draft.words
            if best is None or abs(error) < abs(target - best.words):
                best = draft
            if error == 0:
                break
            shift = max(-80, min(80, shift + error))
        assert best is not None
        return best

    def _pick_records(self, target: int, rng: random.Random) -> list[Record]:
        themes = sorted({record.theme for record in self.records})
        loads = {theme: self._theme_load(theme) + 1.5 * rng.random() for theme in themes}
        theme = min(themes, key=loads.__getitem__)
        members = [record for record in self.records if record.theme == theme]
        mean = sum(record.words for record in members) / len(members)
        count = max(1, min(len(members), self.round_count(target / (self.density * mean))))
        ranked = sorted(members, key=lambda item: self.usage.load(item) + 2.5 * rng.random())
        picked = ranked[:count]
        rng.shuffle(picked)
        return picked

    def _theme_load(self, theme: str) -> float:
        loads = [self.usage.load(record) for record in self.records if record.theme == theme]
        return sum(loads) / len(loads)

    def _attempt(
        self, picked: Sequence[Record], target: int, shift: int, rng: random.Random
    ) -> Draft:
        scene = Scene(rng)
        headings = [self.heading(record, scene, rng) for record in picked]
        used = sum(count_words(line) for lines in headings for line in lines)
        candidates = self._candidates(picked, scene)
        places = choose_lines(
            [count_words(item.text) for item in candidates],
            [self.usage.counts[item.template] for item in candidates],
            self._required(candidates, len(picked), target - used),
            target + shift - used,
            rng,
        )
        return self._draft(picked, headings, [candidates[place] for place in places], rng)

    def _candidates(self, picked: Sequence[Record], scene: Scene) -> list[Candidate]:
        return [
            Candidate(section, template, scene.fill(template).replace("~", record.subject))
            for section, record in enumerate(picked)
            for template in record.lines
            if self.usage.counts[template] < self.line_cap or "{" in template
        ]

    def _required(self, candidates: Sequence[Candidate], sections: int, room: int) -> list[int]:
        required: list[int] = []
        for section in range(sections):
            places = [i for i, item in enumerate(candidates) if item.section == section]
            required += places[:1]
            required += sorted(places[1:], key=lambda i: self.usage.counts[candidates[i].template])[
                : 2 if sections > 1 else 0
            ]
        fits = sum(count_words(candidates[place].text) for place in required) <= room
        return required if fits else required[:1]

    def _draft(
        self,
        picked: Sequence[Record],
        headings: Sequence[Sequence[str]],
        chosen: Sequence[Candidate],
        rng: random.Random,
    ) -> Draft:
        blocks = []
        for section, record in enumerate(picked):
            lines = [item.text for item in chosen if item.section == section]
            if lines:
                blocks.append("\n".join([*headings[section], self.join(record, lines, rng)]))
        return Draft("\n\n".join(blocks), tuple(item.template for item in chosen))
