"""Chats as other tools store them: turns with role and content, or with from and value."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from llenergymeasure.config.plain_words import shown
from llenergymeasure.domain.prompts import Message, Role

COLUMNS = ("messages", "conversations")
REMEDY = 'write each row as {"messages": [{"role": "user", "content": "..."}]}'

# https://platform.openai.com/docs/api-reference/chat, and datasets in the form of ShareGPT
_ROLES: Mapping[str, Role] = {
    "system": "system",
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard"), "assistant"),
}


class UnfitError(ValueError):
    """What stands in a row is no prompt; the message says why."""


def messages_of(turns: Any) -> tuple[Message, ...]:
    """Give the turns of a chat up to the user's that is to be answered.

    Answers behind it, which datasets for training have, are left out.

    Args:
        turns: A list of ``{"role": ..., "content": ...}`` or ``{"from": ..., "value": ...}``, or
            such a list as JSON, as cells of CSV have it.

    Raises:
        UnfitError: It is no such list, or asks nothing.
    """
    if isinstance(turns, str):
        try:
            turns = json.loads(turns)
        except (ValueError, RecursionError):
            raise UnfitError(
                "text that is no JSON stands in the place of a list of turns"
            ) from None
    if not isinstance(turns, list):
        raise UnfitError("a list of turns is missing")
    roles = [_role(number, turn) for number, turn in enumerate(turns, start=1)]
    while roles and roles[-1] == "assistant":
        roles.pop()
    if not roles or roles[-1] != "user":
        raise UnfitError("its chat asks nothing: no turn of a user stands at its end")
    contents = (_content(number, turn) for number, turn in enumerate(turns[: len(roles)], start=1))
    return tuple(map(Message, roles, contents))


def other_keys(turns: Any) -> Iterator[str]:
    """Name the keys of turns that nothing is made of."""
    for turn in turns if isinstance(turns, list) else ():
        if isinstance(turn, Mapping):
            # Parquet has every key that any turn has, empty where the turn has it not.
            yield from (
                key
                for key, value in turn.items()
                if value is not None and key not in ("role", "content", "from", "value")
            )


def _role(number: int, turn: Any) -> Role:
    if not isinstance(turn, Mapping):
        raise UnfitError(f"turn {number} is not an object with role and content")
    given = turn.get("role") or turn.get("from")
    role = _ROLES.get(given) if isinstance(given, str) else None
    if role is None:
        known = "system, user (human) or assistant (gpt)"
        raise UnfitError(f"turn {number} is by '{shown(given)}', and not by {known}")
    return role


def _content(number: int, turn: Mapping[str, Any]) -> str:
    """Give the text of a turn; parts of text are lines of it, as vLLM joins them.

    https://github.com/vllm-project/vllm/blob/main/vllm/entrypoints/chat_utils.py
    """
    content = turn.get("content")
    content = turn.get("value") if content is None else content
    if isinstance(content, list):
        parts = [part if isinstance(part, Mapping) else {} for part in content]
        other = next((one.get("type") for one in parts if one.get("type") != "text"), None)
        if other is not None or not all(isinstance(one.get("text"), str) for one in parts):
            what = f"'{shown(other)}'" if other else "no kind that is known"
            raise UnfitError(f"turn {number} has a part of {what}, and only text is measured")
        content = "\n".join(one["text"] for one in parts)
    if not isinstance(content, str) or not content:
        raise UnfitError(f"turn {number} has no text")
    try:
        content.encode()
    except UnicodeEncodeError:
        raise UnfitError(f"turn {number} has half of a surrogate pair, no Unicode") from None
    return content
