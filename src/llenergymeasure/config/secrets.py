"""Recognise credentials, so that none is taken into a configuration, printed, or stored.

One recogniser stands at every way in and out: :func:`secret_paths` names the fields of a
configuration that hold one, :func:`redact` hides them in a text, :func:`redacted` in data. A
credential is known by its shape, by the name it is given under, or because a variable of this
environment holds it under such a name, whatever it looks like.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, quote_plus

ADVICE = "looks like a credential; keep it in the environment (HF_TOKEN)"

KEY_BEGINS, KEY_ENDS = "-----BEGIN ", "-----END "
"""How the first and the last line of a private key begin (RFC 7468)."""

_HIDDEN = "***"
_SHORTEST = 8  # a shorter value of a variable stands in a text by accident

# Names that credentials are given under. pad_token, eos_token and their kind are words of a
# tokenizer, max_new_tokens is a count.
_OWNERS = (
    r"hf|hub|hugging_?face(?:_hub)?|auth|use_auth|access|api|bearer|github|gh|gitlab|session"
    r"|security|refresh|private|personal_access|deploy|wandb|slack|bot"
)
_KEYS = (
    r"password|passwd|passphrase|secret|secret[_-]?access[_-]?key|client[_-]?secret"
    r"|(?:api|secret|private|access|account|auth)[_-]?key"
)
_SECRET_KEY = re.compile(
    rf"(?:^|[_.-])(?:{_KEYS}|credentials?|authorization)$"
    rf"|(?:^|\.)(?:(?:{_OWNERS})[_-]?)?token$",
    re.I,
)
_SECRET_VARIABLE = re.compile(rf"(?:^|_)(?:token|jwt|pat|pass|{_KEYS})$", re.I)

# Shapes -------------------------------------------------------------------------------------------
# No pattern may look at a text more than a bounded number of times: whoever prints megabytes into
# one line waits for them. So what repeats is bounded, or begins where its run of characters does.

_MIXED = r"(?=[\w-]{0,99}?[A-Z])(?=[\w-]{0,99}?[a-z])(?=[\w-]{0,99}?\d)"  # a name is of words

# How tokens begin, and how they go on, as their issuers document it.
_TOKENS = (
    ("hf_", r"[A-Za-z0-9]{20,}"),
    ("api_org_", r"[A-Za-z0-9]{20,}"),
    ("gh", r"[pousr]_[A-Za-z0-9]{30,}"),
    ("github_pat_", r"\w{22,}"),
    ("glpat-", r"[\w-]{20,}(?:\.[\w.]{9,})?"),
    ("gl", rf"(?:oas|ptt|rtr?|cbt|dt|soat|ft|imt|agent|ffct)-{_MIXED}[\w-]{{20,}}"),
    ("AKIA", r"[A-Z0-9]{16}(?![A-Za-z0-9])"),
    ("ASIA", r"[A-Z0-9]{16}(?![A-Za-z0-9])"),
    ("AIza", r"[\w-]{35,}"),
    ("ya29.", r"[\w-]{20,}"),
    ("GOCSPX-", r"[\w-]{20,}"),
    ("xox", r"[abeoprs]-[\w-]{10,}"),
    ("xapp-", r"\d-[\w-]{20,}"),
    ("nvapi-", r"[\w-]{40,}"),
    ("gsk_", r"[A-Za-z0-9]{40,}"),
    ("r8_", r"[A-Za-z0-9]{37,}"),
    ("xai-", r"[A-Za-z0-9]{60,}"),
    ("pplx-", r"[A-Za-z0-9]{40,}"),
    ("dckr_", r"(?:pat|oat)_[\w-]{20,}"),
    ("npm_", r"[A-Za-z0-9]{36,}"),
    ("pypi-", r"AgE[\w-]{50,}"),
    ("sk_", r"(?:live|test)_[A-Za-z0-9]{16,}"),
    ("rk_", r"(?:live|test)_[A-Za-z0-9]{16,}"),
)
_PEM = r"[A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----"

# What a text in small letters has where there is one of the kind; what of it stays; what is hidden.
_SHAPES = (
    # What is not looked at from its middle is found quickest by its beginning.
    *(
        (begin.lower(), "", f"{re.escape(begin)}(?<![A-Za-z0-9]{re.escape(begin)}){rest}")
        for begin, rest in _TOKENS
    ),
    # A key is random, so somewhere in it 20 letters and digits stand together; a model that happens
    # to be called sk-something is made of words.
    ("sk-", "", rf"sk-(?<![A-Za-z0-9]sk-)(?:ant|proj|svcacct|admin|or|lf)-{_MIXED}[\w-]{{24,}}"),
    (
        "sk-",
        "",
        r"sk-(?<![A-Za-z0-9]sk-)(?=[\w-]{0,60}?(?=[A-Za-z]{0,19}\d)[A-Za-z0-9]{20})[\w-]{32,}",
    ),
    ("private key", "", rf"{KEY_BEGINS}{_PEM}(?s:.*?)(?:{KEY_ENDS}{_PEM}|\Z)"),
    # The user of an address ends at the last @ before its path (RFC 3986, 3.2); git is no secret.
    ("://", "://", r"(?!git@)[^/\s\"'<>]+(?=@)"),
    # With a slash in it, a password can be told from the port that would stand there.
    ("://", "://", r"[^/\s:@\"'<>\[]+:(?!\d{0,5}(?:[/?#\s\"']|\Z))[^\s\"'<>@]{0,200}(?=@)"),
    # Of an image, user:password@registry.org/name; a digest stands behind the name.
    (
        "@",
        r"(?<![^\s/\"'<>])",
        r"[^\s/\"'<>@:]++:[^\s/\"'<>]{1,300}(?=@(?:localhost|[\w-]+(?:\.[\w-]+)+)(?::\d+)?/)",
    ),
    ("hooks.slack.com/", r"hooks\.slack\.com/(?:services|workflows)/", r"[\w/]{20,}"),
    ("eyj", r"(?<![\w.-])[\w-]{0,20}?", r"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}"),
    ("sig", r"[?&](?:X-Amz-Signature|Signature|sig)=", r"[^&\s\"'<>]{8,}"),
    ("bearer ", r"[Bb]earer ", r"(?=[\w.~+/-]{0,200}\d)[\w.~+/-]{20,}=*"),
)

# What is given under a name. ``hf_token=None`` gives nothing, ``token: 151643`` tells a word of a
# vocabulary, ``$HF_TOKEN`` refers to what is given elsewhere, and a message goes on in words.
_END = r"[^\s\"'&,;)}\]\\]"
_VALUE = rf"(?!(?:None|null|True|False|\d{{1,7}})(?!{_END}))(?![<$*{{(\[]){_END}{{6,}}"
_ODD = rf"(?=[^\s\"']{{0,99}}\d|[^\s\"']{{16}}){_VALUE}"
_QUOTE = r"\\?[\"']"
_NAME = rf"(?i:{_KEYS}|(?<![a-z])(?:{_OWNERS})[_-]?token|(?<=[?&-])token|(?-i:(?<=[A-Z0-9]_)TOKEN))"
_HEADER = r"(?i:(?<![\w.-])(?:(?:proxy-)?authorization|x-goog-api-key|x-auth-token|token))"
# One of these stands in a text in small letters that gives any of it.
_GIVES = re.compile(
    rf"(?:token|pass(?:word|wd|phrase)|secret|key|authorization)(?:{_QUOTE})? ?[:=]"
    r"|-(?:token|password|passphrase|secret|key) "
)
_GIVEN = (
    (rf"{_NAME}(?:{_QUOTE})? ?= ?(?:{_QUOTE})?", _VALUE),
    (rf"{_NAME}(?:{_QUOTE})? ?[:=] ?{_QUOTE}", r"(?![<$*])[^\"'\\\n]{4,}"),
    (rf"(?:{_NAME}|{_HEADER})(?:{_QUOTE})? ?[:=] {{0,2}}(?:{_QUOTE})?", _ODD),
    (rf"(?<=-){_NAME} ", _ODD),
    (
        rf"(?i:authorization(?:{_QUOTE})? ?[:=] ?(?:{_QUOTE})?"
        r"(?:bearer|basic|token|digest|negotiate) )",
        rf"(?![*]){_END}{{4,}}",
    ),
)


def redact(text: str, known: re.Pattern[str] | None = None) -> str:
    """Hide everything in a text that is a credential.

    Args:
        text: Any text.
        known: Matches what the environment holds; looked up where it is not given.
    """
    text = (known or _known()).sub(_HIDDEN, text)
    folded = text.lower()
    for marker, kept, secret in _SHAPES:
        if marker in folded:
            text = re.sub(f"({kept}){secret}", rf"\1{_HIDDEN}", text)
    if _GIVES.search(folded):
        for kept, secret in _GIVEN:
            text = re.sub(f"({kept}){secret}", rf"\1{_HIDDEN}", text)
    return text


def redacted(data: Any, known: re.Pattern[str] | None = None) -> Any:
    """Hide every credential in plain data, as in a text; structure and other names stay.

    What holds none is given back itself: a copy of a large study would take memory for nothing.
    """
    known = known or _known()
    if isinstance(data, str):
        return redact(data, known)
    clean = data
    if isinstance(data, Mapping):
        clean = {redacted(key, known): redacted(value, known) for key, value in data.items()}
    elif isinstance(data, list | tuple):
        clean = [redacted(one, known) for one in data]
    return data if clean == data else clean


def secret_paths(data: Any) -> Iterator[str]:
    """Yield the dotted path of every value that looks like a credential, never the value."""
    known = _known()
    for parts in _secrets(data, (), known):
        yield redact("".join(parts), known).removeprefix(".")


def _secrets(
    data: Any, parts: tuple[str, ...], known: re.Pattern[str]
) -> Iterator[tuple[str, ...]]:
    if isinstance(data, str):
        if redact(data, known) != data:
            yield parts
    elif data is None or isinstance(data, int | float | bytes):
        return
    elif isinstance(data, Mapping):
        for key, value in data.items():
            inner = (*parts, f".{key}")
            given = value is not None and not isinstance(value, bool)
            if isinstance(value, str | Mapping | Sequence):
                given = len(value) > 0
            if given and _SECRET_KEY.search(str(key)):
                yield inner
            else:
                yield from _secrets(value, inner, known)
    elif isinstance(data, Sequence):
        for position, value in enumerate(data):
            yield from _secrets(value, (*parts, f"[{position}]"), known)


def _known() -> re.Pattern[str]:
    """Match what variables of this environment hold under the name of a credential."""
    names = _secret_variables(tuple(os.environ))
    return _any_of(tuple(os.environ.get(name, "").strip() for name in names))


@functools.lru_cache(maxsize=1)
def _secret_variables(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if _SECRET_VARIABLE.search(name))


@functools.lru_cache(maxsize=1)
def _any_of(values: tuple[str, ...]) -> re.Pattern[str]:
    """Match some values, and their lines, as they are and as addresses, JSON and Python have them.

    Letters alone may be a word; then it is that word only.
    """
    forms: set[str] = set()
    for value in {part.strip() for whole in values for part in (whole, *whole.splitlines())}:
        if len(value) >= _SHORTEST:
            raw = os.fsencode(value)  # in whatever encoding
            forms |= {value, quote(raw, safe=""), quote(raw), quote_plus(raw)}
            forms |= {json.dumps(value)[1:-1], repr(value)[1:-1]}
            forms.add(json.dumps(value, ensure_ascii=False)[1:-1])
    longest_first = sorted(forms, key=lambda form: (-len(form), form))
    each = (rf"\b{form}\b" if form.isalpha() else re.escape(form) for form in longest_first)
    return re.compile("|".join(each) or r"(?!)", re.I)  # the latter matches nothing
