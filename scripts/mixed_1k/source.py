"""Reading of the hand-written source material."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path

MATERIAL = Path(__file__).parent / "material"
CHOICE = re.compile(r"\{([^{}]*\|[^{}]*)\}")
NAMES = [
    "Amina",
    "Bruno",
    "Carla",
    "Dario",
    "Edith",
    "Farid",
    "Greta",
    "Hugo",
    "Ines",
    "Jonas",
    "Kira",
    "Leon",
    "Mona",
    "Nils",
    "Olga",
    "Pavel",
    "Rosa",
    "Sven",
    "Tara",
    "Viktor",
    "Wanda",
    "Yusuf",
    "Zoe",
    "Astrid",
    "Boris",
    "Clara",
]
TOWNS = [
    "Millbrook",
    "Ashford",
    "Larkhill",
    "Westerby",
    "Elmstead",
    "Hartfield",
    "Oakhaven",
    "Stonebridge",
    "Fernley",
    "Marlow",
    "Redcliff",
    "Thornbury",
    "Wexcombe",
    "Kingsmere",
    "Brackley",
    "Dunholm",
    "Aldersey",
    "Pinewick",
]


@dataclass(frozen=True)
class Record:
    """One subject of the source material with its sentences in a sensible order."""

    theme: str
    title: str
    subject: str
    pronoun: str
    lines: tuple[str, ...]

    @property
    def words(self) -> int:
        """Number of words in all lines."""
        return sum(len(line.split()) for line in self.lines)


def read_lines(name: str) -> list[str]:
    """Return the non-empty lines of a file of the source material."""
    text = (MATERIAL / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.strip()]


def read_groups(name: str) -> dict[str, list[str]]:
    """Return the sentences of a file by the group name that precedes each of them."""
    groups: dict[str, list[str]] = {}
    for line in read_lines(name):
        group, _, sentence = line.partition(": ")
        groups.setdefault(group, []).append(sentence)
    return groups


def read_blocks(name: str) -> list[str]:
    """Return the blocks of a file in which `@@` on a line of its own starts each block."""
    text = (MATERIAL / name).read_text(encoding="utf-8")
    return [block.strip("\n") for block in text.split("@@\n") if block.strip()]


def read_theme(name: str) -> str:
    """Return the text after `#` in the first line of a record file."""
    return read_lines(name)[0].removeprefix("#").strip()


def read_records(name: str) -> list[Record]:
    """Return the records of one file: `@ title | subject | pronoun`, then one line each."""
    theme = read_theme(name)
    headers: list[list[str]] = []
    bodies: list[list[str]] = []
    for line in read_lines(name)[1:]:
        if line.startswith("@ "):
            headers.append([part.strip() for part in line[2:].split(" | ")])
            bodies.append([])
        else:
            bodies[-1].append(line)
    return [_record(theme, head, body) for head, body in zip(headers, bodies, strict=True)]


def _record(theme: str, header: list[str], lines: list[str]) -> Record:
    title, subject, pronoun = header if len(header) == 3 else [header[0], "", ""]
    return Record(theme, title, subject, pronoun, tuple(lines))


class Scene:
    """The names and choices that stay the same within one prompt."""

    def __init__(self, rng: random.Random) -> None:
        """Draw a person and a town for the prompt."""
        self._rng = rng
        self.name = rng.choice(NAMES)
        self.town = rng.choice(TOWNS)

    def fill(self, template: str) -> str:
        """Return `template` with its `{a|b}` choices and `$name`, `$town` slots filled."""
        text = CHOICE.sub(lambda match: self._rng.choice(match[1].split("|")), template)
        return text.replace("$name", self.name).replace("$town", self.town)
