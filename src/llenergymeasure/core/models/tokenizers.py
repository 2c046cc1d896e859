"""Text to tokens through transformers, and which tokens end a sequence, alike for all engines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llenergymeasure.core.models import sources, tokenizer_files
from llenergymeasure.core.models.config_json import stated_in
from llenergymeasure.core.models.hub import Hub
from llenergymeasure.core.models.sources import ModelSource
from llenergymeasure.exceptions import ConfigError

GENERATION_CONFIG = "generation_config.json"


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
        if not self.apply_chat_template:
            return list(self.inner.encode(text, verbose=False))
        message = [{"role": "user", "content": text}]
        rendered = self.inner.apply_chat_template(
            message, tokenize=False, add_generation_prompt=True
        )
        return list(self.inner.encode(rendered, add_special_tokens=False, verbose=False))

    def ordinary_ids(self) -> tuple[int, ...]:
        """List the ids that stand for text, ascending: no specials, no added tokens, no filler."""
        return self._ordinary_ids

    def pad_id(self, ends: Iterable[int]) -> int:
        """Choose the filler of padded positions, which engines hide anyway.

        Args:
            ends: Ids that end a sequence, for a tokenizer without one.
        """
        own: int | None = self.inner.pad_token_id
        return min(ends, default=0) if own is None else own

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
