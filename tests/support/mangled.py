"""JSON that a hand, a program or a disk has made something else of; the same for the same seed."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

_MARK = "<raw>"
RAW = (
    "NaN",
    "-Infinity",
    "1e999",
    "1" + "0" * 400,
    "1" + "0" * 5000,
    "[" * 3000 + "]" * 3000,
    '{"text_config": ' * 900 + "{}" + "}" * 900,
    '"\\ud800"',
    '"\\u0000"',
    '"\\u001b[31m"',
    f'"{"x" * 10_000}"',
    "[" + "1," * 20_000 + "1]",
    '{"a": 1, "a": 2}',
    "01",
    "",
)
"""Values as no program of ours writes them."""

VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    10**9,
    2**63,
    10**30,
    0.5,
    1e308,
    "",
    "word",
    "../../etc/passwd",
    [],
    {},
    [None],
    {"": ""},
    [[["deep"]]],
)


def mangled(content: bytes, random: Random) -> bytes:
    """Change a file of JSON in one to three places: a value, a key, or some bytes."""
    for _ in range(random.randint(1, 3)):
        content = random.choice((_structure, _structure, _structure, _bytes))(content, random)
    return content


def _structure(content: bytes, random: Random) -> bytes:
    try:
        data = copy.deepcopy(json.loads(content))
    except (ValueError, RecursionError):
        return _bytes(content, random)
    if not isinstance(data, dict | list) or not data:
        return random.choice(RAW).encode()
    holder = data
    while True:
        key = random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        inner = holder[key]
        if not (isinstance(inner, dict | list) and inner) or random.random() < 0.2:
            break
        holder = inner
    what = random.randrange(4)
    if what == 0:
        del holder[key]
    elif what == 1 and isinstance(holder, dict):
        holder[str(random.choice(VALUES))] = holder.pop(key)
    elif what == 2:
        holder[key] = _MARK
        text = json.dumps(data)
        return text.replace(f'"{_MARK}"', random.choice(RAW)).encode()
    else:
        holder[key] = random.choice(VALUES)
    return json.dumps(data).encode()


def _bytes(content: bytes, random: Random) -> bytes:
    place = random.randrange(len(content) + 1)
    length = random.choice((1, 10, 1000))
    strange = random.choice((b"\0", b"\xff", b"{", b'"', b"\n", b"\x1b[2J"))
    return random.choice(
        (
            content[:place],
            content[:place] + content[place + length :],
            content[:place] + strange * length + content[place:],
            content[place:] + content[:place],
            content[:place] + content[place : place + length] * 3 + content[place + length :],
        )
    )
