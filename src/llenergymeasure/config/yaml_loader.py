"""YAML whose values mean one thing, to whoever wrote them and to every other reader of YAML.

PyYAML reads YAML 1.1, in which ``010`` is 8, ``1:30`` is 90 and ``1e3`` is text; by YAML 1.2 they
are 10, text and a thousand (https://yaml.org/spec/1.2.2/ext/changes, https://yaml.org/type/int).
What both read alike stays, an exponent makes a number, and the rest is refused.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import yaml
from yaml.constructor import ConstructorError

if TYPE_CHECKING:
    from yaml import SafeLoader as _Safe
else:
    _Safe = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_PREFIX = "tag:yaml.org,2002:"
MERGE_TAG, BOOL_TAG, TEXT_TAG = (f"{_PREFIX}{kind}" for kind in ("merge", "bool", "str"))
LONGEST_NUMBER = 100
"""Characters of a number: Python makes one of thousands of digits, and then cannot write it."""

_LARGEST_EXACT = 1e22  # every power of ten up to it is the very number that it says
_EXPONENT = re.compile(r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$")
_QUOTES = "if it is text, put it in quotes"


class MisleadingError(ConstructorError):
    """A value that would not be what it looks like; ``problem`` says what it would be."""


class Loader(_Safe):
    """Builds plain values only: text, numbers, truth values, dates, null, lists and mappings."""

    def construct_yaml_int(self, node: Any) -> int:
        """Build a whole number, but none by a base that its digits do not show."""
        text = _digits(self, node)
        value = int(super().construct_yaml_int(node))
        if ":" in text:
            raise _misleading(node, f"would be {value}, counted in sixties; write {value}")
        if text.lstrip("+-").isdecimal() and value != int(text):
            said = f"would be {value}, as a leading 0 makes it octal"
            raise _misleading(node, f"{said}; write {int(text)} or {value}")
        return value

    def construct_yaml_float(self, node: Any) -> float:
        """Build a number; a whole one where neither a point nor its exponent says otherwise."""
        text = _digits(self, node)
        value = float(super().construct_yaml_float(node))
        if ":" in text:
            raise _misleading(node, f"would be {value}, counted in sixties; write {value}")
        if math.isinf(value) and text[-1].isdecimal():
            raise _misleading(node, "is beyond the largest number there is, 1.8e308")
        whole = "." not in text and value.is_integer() and abs(value) <= _LARGEST_EXACT
        return int(value) if whole else value

    def construct_yaml_str(self, node: Any) -> str:
        """Build text; no field, no path and no engine takes a NUL in it."""
        text = str(self.construct_scalar(node))
        if "\0" in text:
            raise MisleadingError(None, None, "text must not hold a NUL (\\0)", node.start_mark)
        return text

    def construct_undefined(self, node: Any) -> Any:
        """Refuse a tag that asks for any other kind of value."""
        tag = node.tag.replace(_PREFIX, "!!")[:40]
        said = f"the tag {tag} has no place in a configuration; leave it out"
        raise ConstructorError(None, None, said, node.start_mark)


def _digits(loader: Loader, node: Any) -> str:
    text = str(loader.construct_scalar(node)).replace("_", "")
    if len(text) > LONGEST_NUMBER:
        said = f"a number of {len(text):,} characters is more than anything here takes"
        raise MisleadingError(None, None, f"{said}; {_QUOTES}", node.start_mark)
    return text


def _misleading(node: Any, what: str) -> MisleadingError:
    return MisleadingError(None, None, f"{node.value} {what}; {_QUOTES}", node.start_mark)


def _guarded(kind: str, noun: str) -> None:
    """Let a kind of value be built whose constructor breaks in its own ways on what is none."""
    construct = getattr(Loader, f"construct_yaml_{kind}")

    def build(loader: Loader, node: Any) -> Any:
        try:
            return construct(loader, node)
        except (ValueError, LookupError, AttributeError, OverflowError):
            said = f"this is no {noun}"
            raise ConstructorError(None, None, said, node.start_mark) from None

    Loader.add_constructor(_PREFIX + kind, build)


_guarded("int", "whole number")
_guarded("float", "number")
_guarded("bool", "truth value; write true or false")
_guarded("timestamp", "date")
for _kind in ("str", "value", "merge"):  # the last two are '=' and '<<' where they are no keys
    Loader.add_constructor(_PREFIX + _kind, Loader.construct_yaml_str)
for _tag in (*(_PREFIX + kind for kind in ("binary", "set", "omap", "pairs")), None):
    Loader.add_constructor(_tag, Loader.construct_undefined)
Loader.add_implicit_resolver(f"{_PREFIX}float", _EXPONENT, list("-+0123456789."))
