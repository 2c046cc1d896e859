"""Measures of repetition within and between prompts."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

SHINGLE_WORDS = 8
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def long_sentences(text: str, least_words: int = SHINGLE_WORDS) -> list[str]:
    """Return the sentences of a text that have at least `least_words` words."""
    sentences = (part.strip() for part in SENTENCE_END.split(text))
    return [sentence for sentence in sentences if len(sentence.split()) >= least_words]


def shingles(text: str, size: int = SHINGLE_WORDS) -> set[tuple[str, ...]]:
    """Return all runs of `size` consecutive words."""
    words = text.lower().split()
    return {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}


class OverlapIndex:
    """Finds the earlier text that shares most shingles with a new one."""

    def __init__(self) -> None:
        """Start without any texts."""
        self._holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self._sizes: list[int] = []

    def highest_jaccard(self, text: str) -> float:
        """Return the largest Jaccard overlap of `text` with any text added before."""
        own = shingles(text)
        shared = Counter(number for shingle in own for number in self._holders.get(shingle, ()))
        overlaps = (
            count / (len(own) + self._sizes[number] - count) for number, count in shared.items()
        )
        return max(overlaps, default=0.0)

    def add(self, text: str) -> None:
        """Add a text to the index."""
        own = shingles(text)
        for shingle in own:
            self._holders[shingle].append(len(self._sizes))
        self._sizes.append(len(own))


def highest_overlap(texts: Iterable[str]) -> float:
    """Return the largest Jaccard overlap between any two texts."""
    index = OverlapIndex()
    highest = 0.0
    for text in texts:
        highest = max(highest, index.highest_jaccard(text))
        index.add(text)
    return highest
