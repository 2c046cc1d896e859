"""The files of a tokenizer: the one that ships with the package, its padding, its fingerprint."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from llenergymeasure import plain_files
from llenergymeasure.core.models.config_json import MOST_BYTES, stated_in
from llenergymeasure.exceptions import ConfigError

NAMES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_PADDED_BY = "padded_by_llenergymeasure"
_FILLER = re.compile(r"<\|filler_\d+\|>")
_SPECIAL_IDS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "pad_token": "pad_token_id",
}


def packaged() -> Path:
    """Locate the tokenizer that ships with the package."""
    return Path(str(files("llenergymeasure.core.models") / "tokenizer"))


def is_filler(token: str) -> bool:
    """Tell whether a token only pads the vocabulary."""
    return _FILLER.fullmatch(token) is not None


def own_files(folder: Path) -> list[Path]:
    """List the tokenizer files of a directory; empty where it has no vocabulary."""
    if not any((folder / name).is_file() for name in _VOCABULARIES):
        return []
    return [folder / name for name in NAMES if (folder / name).is_file()]


def has_chat_template(folder: Path) -> bool:
    """Tell whether the tokenizer of a directory brings a chat template.

    https://huggingface.co/docs/transformers/chat_templating: a file of its own, or a setting.
    """
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    return bool(stated_in(folder / "tokenizer_config.json").get("chat_template"))


def padded(tokenizer_json: str, vocabulary: int) -> str:
    """Fill a byte-level BPE ``tokenizer.json`` up to a size with tokens that text never gives.

    The filler goes into the BPE's own vocabulary, where it costs nothing at encoding time, and no
    merge leads to it.

    Args:
        tokenizer_json: The file's text.
        vocabulary: Entries wanted.

    Raises:
        ConfigError: The tokenizer has more entries than that.
    """
    data: dict[str, Any] = json.loads(tokenizer_json)
    taken = check_fits(data, vocabulary)
    filler = {f"<|filler_{index}|>": index for index in range(vocabulary) if index not in taken}
    data["model"]["vocab"].update(filler)
    data["model"]["ignore_merges"] = False  # or a word of the vocabulary would be taken whole
    return json.dumps(data, ensure_ascii=False)


def check_fits(data: dict[str, Any], vocabulary: int) -> set[int]:
    """Give the ids that the contents of a ``tokenizer.json`` use.

    Raises:
        ConfigError: They do not fit into the vocabulary.
    """
    taken = set(data["model"]["vocab"].values()) | {token["id"] for token in data["added_tokens"]}
    needed = max(taken) + 1
    if needed > vocabulary:
        raise ConfigError(
            f"the architecture's vocabulary of {vocabulary:,} is smaller than the {needed:,} "
            "entries of the packaged tokenizer; put tokenizer files beside its config.json, or "
            f"set vocab_size to at least {needed:,}",
            where="vocab_size",
        )
    return taken


def outside(data: dict[str, Any], settings: dict[str, Any], rows: int) -> int | None:
    """Find the largest id that a tokenizer makes of text and that lies outside a model's table.

    Added tokens are left out, but those that begin and end a sequence: most checkpoints have some
    that no text leads to.

    Args:
        data: What is in ``tokenizer.json``.
        settings: What is in ``tokenizer_config.json``.
        rows: Rows of the table of embeddings.

    Returns:
        The id, or ``None`` where all are inside.
    """
    vocabulary = data["model"]["vocab"]
    if isinstance(vocabulary, list):  # of Unigram: pieces with their scores
        vocabulary = {piece[0]: index for index, piece in enumerate(vocabulary)}
    added = {token["content"]: token["id"] for token in data.get("added_tokens") or ()}
    named = {_text(settings.get(name)) for name in ("bos_token", "eos_token")}
    ids = [index for token, index in vocabulary.items() if token not in added]
    ids += [index for token, index in added.items() if token in named]
    largest = max(ids, default=0)
    return largest if largest >= rows else None


def padded_settings(tokenizer_config: str) -> str:
    """Mark a ``tokenizer_config.json`` as that of a padded tokenizer.

    The mark tells :func:`is_padded` to have it loaded as it is. A loader that goes by the model's
    type instead, as transformers does for Qwen2, may add the unknown token of that type to the
    vocabulary unless the settings name one that exists.
    """
    settings = json.loads(tokenizer_config)
    return json.dumps({**settings, "unk_token": settings["pad_token"], _PADDED_BY: True}, indent=2)


def is_padded(folder: Path) -> bool:
    """Tell whether the tokenizer of a directory is the packaged one, padded."""
    return _PADDED_BY in stated_in(folder / "tokenizer_config.json")


def special_ids(folder: Path) -> dict[str, int]:
    """Give the ids of a tokenizer's special tokens under the keys ``config.json`` has for them."""
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    ids = {**data["model"]["vocab"], **{t["content"]: t["id"] for t in data["added_tokens"]}}
    tokens = {key: _text(settings.get(name)) for name, key in _SPECIAL_IDS.items()}
    return {key: ids[token] for key, token in tokens.items() if token in ids}


def fingerprint(find: Callable[[str], Path | None]) -> str | None:
    """Hash a tokenizer with SHA-256, or give ``None`` where no file of it is found.

    It is the hash of ``tokenizer.json`` where there is one, since that holds the whole mapping
    from text to tokens; else that of all its files, each preceded by its name.

    Args:
        find: Locates a file by name, or gives ``None``.
    """
    whole = find("tokenizer.json")
    if whole is not None:
        return hashlib.sha256(plain_files.read(whole, MOST_BYTES)).hexdigest()
    return _hashed([path for name in NAMES if (path := find(name)) is not None])


def template_fingerprint(folder: Path) -> str | None:
    """Hash what makes the text of a chat: the template, and the settings that it is filled with.

    Args:
        folder: The directory of the tokenizer.

    Returns:
        The SHA-256 of its files but ``tokenizer.json``, or ``None`` where there is no template.
    """
    if not has_chat_template(folder):
        return None
    return _hashed([path for path in own_files(folder) if path.name != "tokenizer.json"])


def _hashed(paths: list[Path]) -> str | None:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + plain_files.read(path, MOST_BYTES))
    return digest.hexdigest() if paths else None


def _text(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token
