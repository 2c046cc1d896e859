"""Composition of the whole dataset under its limits on repetition."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from mixed_1k.encyclopaedia import Encyclopaedia
from mixed_1k.overlap import OverlapIndex, long_sentences
from mixed_1k.passages import Draft, Usage
from mixed_1k.questions_and_tasks import Requests
from mixed_1k.targets import LONGEST, file_order, kind_of_rank, target_lengths
from mixed_1k.web import Web

SEED = "mixed-1k, first edition"
SENTENCE_CAP = 12
OVERLAP_CAP = 0.45
ATTEMPTS = 80
SHORT_WORDS = 60


class PromptWriter(Protocol):
    """A writer of one kind of prompt."""

    def write(self, target: int, rng: random.Random) -> Draft:
        """Return a text of about `target` words."""


class Composer:
    """Writes prompts one after another and remembers what has been used."""

    def __init__(self) -> None:
        """Load the source material."""
        self.usage = Usage()
        self._writers: dict[str, PromptWriter] = {
            "encyclopaedic": Encyclopaedia(self.usage),
            "web": Web(self.usage),
            "request": Requests(self.usage),
        }
        self._texts: set[str] = set()
        self._sentences: Counter[str] = Counter()
        self._index = OverlapIndex()

    def prompt(self, kind: str, target: int, rng: random.Random) -> str:
        """Return a new prompt of `target` words that respects the limits."""
        best: Draft | None = None
        for _ in range(ATTEMPTS):
            draft = self._writers[kind].write(target, rng)
            if not self._acceptable(draft):
                continue
            if best is None or abs(draft.words - target) < abs(best.words - target):
                best = draft
            if draft.words == target:
                break
        if best is None:
            raise RuntimeError(f"no acceptable {kind} prompt of {target} words")
        self._remember(best)
        return best.text

    def _acceptable(self, draft: Draft) -> bool:
        sentences = long_sentences(draft.text)
        return (
            draft.text not in self._texts
            and 2 <= draft.words <= LONGEST
            and len(sentences) == len(set(sentences))
            and all(self._sentences[sentence] < SENTENCE_CAP for sentence in sentences)
            and self._index.highest_jaccard(draft.text) < OVERLAP_CAP
        )

    def _remember(self, draft: Draft) -> None:
        self._texts.add(draft.text)
        self._sentences.update(long_sentences(draft.text))
        self._index.add(draft.text)
        self.usage.counts.update(draft.lines)


def writing_order(targets: Sequence[int]) -> list[int]:
    """Return the ranks of short prompts, which need opening sentences most, then the longest."""
    short = [rank for rank, target in enumerate(targets) if target <= SHORT_WORDS]
    return short + [rank for rank in reversed(range(len(targets))) if rank >= len(short)]


def compose_prompts() -> list[str]:
    """Return all prompts in file order."""
    composer = Composer()
    rng = random.Random(SEED)
    targets = target_lengths()
    by_rank = {
        rank: composer.prompt(kind_of_rank(rank), targets[rank], rng)
        for rank in writing_order(targets)
    }
    return [by_rank[rank] for rank in file_order()]
