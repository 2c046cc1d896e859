"""Text to tokens through transformers, and which tokens end a sequence, alike for all engines."""

from __future__ import annotations

import functools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llenergymeasure import lifeline
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.models import sources, tokenizer_files
from llenergymeasure.core.models.config_json import stated_in
from llenergymeasure.core.models.hub import Hub
from llenergymeasure.core.models.sources import ModelSource
from llenergymeasure.domain.prompts import Message, Role
from llenergymeasure.exceptions import ConfigError, LLEMError, Problem
from llenergymeasure.processes import same_modules

GENERATION_CONFIG = "generation_config.json"
TRIED_WITHIN_S = 120.0
"""Longest time for a chat template, the start of an interpreter included."""
_MOST_ROLES = 8
_OTHER_MODEL = "remove it, or choose a model whose template takes such messages"


@dataclass(frozen=True)
class HFTokenizer:
    """A Hugging Face tokenizer; implements the ``Tokenizer`` of the backends' contract.

    Attributes:
        inner: The tokenizer as transformers loaded it.
        find: Locates a file of the tokenizer by name, or gives ``None``.
        apply_chat_template: Whether prompts are wrapped as a user message.
    """

    inner: Any
    find: Callable[[str], Path | None]
    apply_chat_template: bool = False

    def encode(self, text: str) -> list[int]:
        """Tokenise one prompt.

        With the chat template, as one user message and the beginning of the answer; else with the
        special tokens the model's tokenizer adds by itself, such as a beginning of sequence.
        """
        if self.apply_chat_template:
            return self.encode_chat([Message("user", text)])
        return list(self.inner.encode(text, verbose=False))

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Tokenise a chat and the beginning of the answer, as the model's chat template has it.

        Raises:
            ConfigError: There is no template, or it does not take these turns.
        """
        if not getattr(self.inner, "chat_template", None):
            raise ConfigError(
                "the dataset holds chats, and the model's tokenizer has no chat template; choose "
                "an instruction-tuned model, or name a column of plain text (dataset: {path: ..., "
                "column: ...})",
                where="dataset",
            )
        turns = [message._asdict() for message in messages]
        try:
            rendered = self.inner.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True
            )
        except LLEMError:  # not the template's: its time is over
            raise
        except Exception as error:  # a template raises whatever it likes
            said = f"{error}".strip().partition("\n")[0] or type(error).__name__
            roles = [message.role for message in messages]
            what = f"turns of {', '.join(roles[:_MOST_ROLES])}"
            if roles == ["user"]:
                what = "a prompt by itself, as a lone user message"
            raise ConfigError(
                f"the chat template of the model's tokenizer does not take {what}: {said}",
                where="dataset",
            ) from error
        return list(self.inner.encode(rendered, add_special_tokens=False, verbose=False))

    def ordinary_ids(self) -> tuple[int, ...]:
        """List the ids that stand for text, ascending: no specials, no added tokens, no filler."""
        return self._ordinary_ids

    def pad_id(self, ends: Iterable[int], rows: int | None = None) -> int:
        """Choose the filler of padded positions, which engines hide anyway.

        Args:
            ends: Ids that end a sequence, for a tokenizer without one.
            rows: Rows of the model's table of embeddings, where they are known; a filler is one
                of them.
        """
        own: int | None = self.inner.pad_token_id
        known = math.inf if rows is None else rows
        return next((one for one in (own, *sorted(ends)) if one is not None and one < known), 0)

    def pad_notes(self, rows: int | None, in_force: int) -> Iterator[str]:
        """Say that the tokenizer's own filler is none that the model knows.

        Args:
            rows: Rows of the model's table of embeddings, where they are known.
            in_force: What :meth:`pad_id` chose.
        """
        own: int | None = self.inner.pad_token_id
        if own is not None and own != in_force:
            yield (
                f"the tokenizer pads with token {own}, which the model's table of {rows} "
                f"embeddings does not have; token {in_force} stands in, and attention leaves it out"
            )

    @cached_property
    def sha256(self) -> str | None:
        """Hash of the tokenizer's files, or ``None`` where none is found on this machine."""
        return tokenizer_files.fingerprint(self.find)

    @cached_property
    def _ordinary_ids(self) -> tuple[int, ...]:
        apart = {*self.inner.all_special_ids, *self.inner.added_tokens_decoder}
        vocabulary = self.inner.get_vocab().items()
        return tuple(
            sorted(
                index
                for token, index in vocabulary
                if index not in apart and not tokenizer_files.is_filler(token)
            )
        )


def load_tokenizer(
    reference: str,
    revision: str | None = None,
    trust_remote_code: bool = False,
    apply_chat_template: bool = False,
) -> HFTokenizer:
    """Load the tokenizer of a model.

    Args:
        reference: Hub id or directory.
        revision: Branch, tag or commit on the Hub.
        trust_remote_code: Whether code that comes with the model may run.
        apply_chat_template: Whether prompts are to be wrapped as a user message.

    Raises:
        ConfigError: It cannot be loaded, or has no chat template though one is asked for.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    # The automatic class rebuilds a tokenizer to the type of the model, e.g. with Qwen2's splitting
    # of words; the packaged tokenizer is to cut text alike for every architecture.
    padded = tokenizer_files.is_padded(Path(reference))
    loader = PreTrainedTokenizerFast if padded else AutoTokenizer
    try:
        inner = loader.from_pretrained(
            reference, revision=revision, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(
            f"the tokenizer of '{reference}' cannot be loaded: {error}", where="model"
        ) from error
    if apply_chat_template and not getattr(inner, "chat_template", None):
        raise ConfigError(
            f"the tokenizer of '{reference}' has no chat template; set apply_chat_template: false, "
            "or choose an instruction-tuned model",
            where="apply_chat_template",
        )
    folder = Path(reference)

    def find(name: str) -> Path | None:
        if folder.is_dir():
            return folder / name if (folder / name).is_file() else None
        return Hub().cached(reference, name, revision)

    return HFTokenizer(inner, find, apply_chat_template)


def end_tokens(source: ModelSource, tokenizer: HFTokenizer) -> tuple[int, ...]:
    """Collect the ids that end a sequence, ascending.

    Every ``eos_token_id`` of ``generation_config.json``, of ``config.json`` (and of the text model
    in it) and of the tokenizer: a chat model often states its end of turn in only one of them
    (huggingface.co/docs/transformers/main_classes/text_generation).

    Args:
        source: The model. On the Hub, a ``generation_config.json`` that is not cached is fetched.
        tokenizer: Its tokenizer.
    """
    try:
        config = sources.read_config(source) or {}
    except ConfigError:
        config = {}
    text = config.get("text_config")
    path = source.path / GENERATION_CONFIG if source.path else None
    if source.kind == "hub":
        path = Hub().fetched(source.name, GENERATION_CONFIG, source.revision)
    stated = (stated_in(path), config, text if isinstance(text, Mapping) else {})
    found = {index for part in stated for index in _ids(part.get("eos_token_id"))}
    return tuple(sorted(found.union(_ids(tokenizer.inner.eos_token_id))))


def _ids(stated: object) -> Iterator[int]:
    for each in stated if isinstance(stated, list | tuple) else (stated,):
        if isinstance(each, int) and not isinstance(each, bool):
            yield each


def trial_problems(
    config: ExperimentConfig,
    within_s: float = TRIED_WITHIN_S,
    *,
    shapes: Iterable[Sequence[Role]] = (),
) -> list[Problem]:
    """Find that a chat template does not take the prompts, or leaves them no room.

    It is tried in a process of its own: whatever a template does, and however long, ends there.
    A model on the Hub whose tokenizer is not on this machine yet is left alone.

    Args:
        config: What to measure, with ``apply_chat_template`` or chats.
        within_s: Longest time.
        shapes: Orders in which roles take turns in the chats of the dataset.
    """
    source = sources.resolve(config.model, config.revision)
    if source.kind == "random" and source.path is None:
        return []
    settings = sources.file_of(source, "tokenizer_config.json")
    if settings is None or not settings.is_file():
        return []
    system = config.system_prompt
    plain: list[Sequence[Role]] = [["user"]] if config.apply_chat_template else []
    chats = []
    for shape in (*plain, *shapes):
        own = [Message("system", system)] if system and shape[0] != "system" else []
        # Not an empty prompt, which some templates do not take.
        chats.append([*own, *(Message(role, "a") for role in shape)])
    job = {
        "reference": str(source.path or source.name),
        "revision": source.revision,
        "chats": chats,
    }
    there = (sources.file_of(source, name) for name in tokenizer_files.NAMES)
    written = tuple(sources.stamped(path) for path in there if path and path.exists())
    told = _tried(json.dumps(job), within_s, written)
    field = "apply_chat_template" if config.apply_chat_template else "dataset"
    if told is None:
        what = f"the chat template of the model's tokenizer does not end within {within_s:g} s"
        return [Problem(what, field, _OTHER_MODEL)]
    if "error" in told:
        if system:
            field = "system_prompt"
        elif told["chat"] >= len(plain):
            field = "dataset"
        return [Problem(told["error"], field, _OTHER_MODEL)]
    limit, tokens = config.max_input_tokens, told.get("tokens", 0)
    if limit is None or tokens < limit:
        return []
    what = (
        f"the chat template alone has {tokens} tokens, which leaves nothing of {limit} to a prompt"
    )
    return [Problem(what, "max_input_tokens", "raise it, or set it to null")]


@functools.lru_cache(maxsize=8)  # a study may cut prompts to several lengths
def _tried(
    job: str, within_s: float, _written: tuple[sources.Stamped, ...]
) -> dict[str, Any] | None:
    """Give what a process of its own says of a template; ``None`` where it does not end.

    ``_written`` tells files apart that were changed in between.
    """
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, our own code
            [sys.executable, "-P", "-m", __name__, str(os.getpid())],
            env={**os.environ, **same_modules(), "HF_HUB_OFFLINE": "1"},
            input=job,  # no argument, which the system bounds: a system prompt may be long
            capture_output=True,
            text=True,
            errors="replace",
            timeout=within_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    *_, answer = done.stdout.splitlines() or [""]
    told: dict[str, Any] = json.loads(answer) if done.returncode == 0 else {}
    return told


def _try_template(
    reference: str, revision: str | None, chats: Sequence[Sequence[tuple[Role, str]]]
) -> dict[str, Any]:
    """Wrap chats in a chat template; tell the least tokens it takes, or what stops it at which."""
    tokenizer = load_tokenizer(reference, revision, apply_chat_template=True)
    lengths = []
    for number, chat in enumerate(chats):
        try:
            lengths.append(len(tokenizer.encode_chat([Message(*turn) for turn in chat])))
        except ConfigError as error:
            return {"error": error.message, "chat": number}
    # What is too long loses turns from its end, and one token at least is the prompt's.
    return {"tokens": min(lengths) - 1}


if __name__ == "__main__":
    lifeline.die_with(int(sys.argv[1]))  # a template may go on for ever
    print(json.dumps(_try_template(**json.load(sys.stdin))))  # noqa: T201 - the answer
