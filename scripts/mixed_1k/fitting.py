"""Choice of sentences whose lengths add up to a wanted number of words."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

TAIL_WORDS = 40
GROUP_ATTEMPTS = 60


def count_words(text: str) -> int:
    """Return the number of words separated by white space."""
    return len(text.split())


def best_subset(lengths: Sequence[int], total: int) -> list[int]:
    """Return the indices of lengths with the largest sum that does not exceed `total`."""
    reached: dict[int, list[int]] = {0: []}
    for index, length in enumerate(lengths):
        for partial in sorted(reached, reverse=True):
            extended = partial + length
            if extended <= total and extended not in reached:
                reached[extended] = [*reached[partial], index]
        if total in reached:
            break
    return reached[max(reached)]


def choose_lines(
    lengths: Sequence[int],
    costs: Sequence[float],
    required: Sequence[int],
    total: int,
    rng: random.Random,
) -> list[int]:
    """Return indices, in order, that include `required` and add up to `total` if possible."""
    chosen = list(required)
    remaining = total - sum(lengths[index] for index in chosen)
    optional = [index for index in range(len(lengths)) if index not in set(required)]
    optional.sort(key=lambda index: costs[index] + 2.0 * rng.random())
    for index in list(optional):
        if lengths[index] <= remaining - TAIL_WORDS:
            chosen.append(index)
            optional.remove(index)
            remaining -= lengths[index]
    tail = best_subset([lengths[index] for index in optional], max(remaining, 0))
    return sorted(chosen + [optional[place] for place in tail])


def fill_with(sentences: Sequence[str], total: int, rng: random.Random) -> list[str]:
    """Return different sentences with `total` words altogether, or as close below as possible."""
    shuffled = rng.sample(list(sentences), len(sentences))
    places = best_subset([count_words(sentence) for sentence in shuffled], total)
    return [shuffled[place] for place in places]


def fill_from_groups(
    groups: Mapping[str, Sequence[str]], total: int, rng: random.Random
) -> list[str]:
    """Return at most one sentence of each group, with `total` words or the closest below."""
    best: list[str] = []
    for _ in range(GROUP_ATTEMPTS):
        options = [rng.choice(sentences) for sentences in groups.values()]
        places = best_subset([count_words(option) for option in options], total)
        found = [options[place] for place in sorted(places)]
        if count_words(" ".join(found)) > count_words(" ".join(best)):
            best = found
        if count_words(" ".join(best)) == total:
            break
    return best
