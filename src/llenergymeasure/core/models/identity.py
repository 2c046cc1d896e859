"""What an experiment is made of beside its settings: an identity for each input.

A path or a name stays while what lies there changes: prompts are edited, weights are trained on,
``main`` moves on the Hub. Results are pooled only where the identities agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from llenergymeasure.config.canonical import canonical_hash
from llenergymeasure.config.models import DatasetFile, ExperimentConfig, SyntheticDataset
from llenergymeasure.config.registry import backend_entry
from llenergymeasure.core.models import sources, tokenizer_files
from llenergymeasure.core.models.hub import ADAPTER_FILE, CONFIG_FILE, Hub
from llenergymeasure.exceptions import ConfigError, ExperimentError

WORDS = {
    "dataset": "the prompts",
    "tokenizer": "the tokenizer",
    "chat_template": "the chat template",
    "model": "the model",
    "lora": "the adapter",
    "decoder.draft_model": "the draft model",
}
"""What an input is called, by the field that names it; tokenizer and template are a model's."""

_HUB = Hub()
_SETTINGS = (".json", ".py", ".jinja", ".txt", ".model")
_WHOLE_BYTES = 1 << 18
_LOOKS, _LOOK_BYTES = 16, 4096


def of_models(
    config: ExperimentConfig, commit: str | None = None, *, hub: Hub = _HUB, ask: bool = False
) -> dict[str, str]:
    """Identify the models of an experiment, by the fields that name them; unknown ones are absent.

    Of a model on the Hub it is the commit, of one with random weights its ``config.json``, of a
    directory its files: names and sizes of all, small ones as a whole, and of weights some
    kilobytes from the beginning, where safetensors describe their tensors, to the end. A chat
    template beside the ``config.json`` of random weights is an input of its own.

    Args:
        config: The experiment.
        commit: Commit of the model's weights, where the engine has told it.
        hub: The Hub and its cache.
        ask: Whether the Hub is asked to what commit a branch has moved; else its cache is.
    """
    if not backend_entry(config.backend).runs_a_model:
        return {}
    named = (
        ("model", config.model, config.revision, CONFIG_FILE),
        ("decoder.draft_model", config.decoder.draft_model, None, CONFIG_FILE),
        ("lora", _adapter(config), None, ADAPTER_FILE),
    )
    found = {}
    for field, name, revision, file in named:
        source = sources.resolve(name, revision) if name else None
        if source is None:
            continue
        told = _identity(source, file, hub, ask=ask)
        if field == "model" and source.kind == "hub" and commit is not None:
            told = f"commit {commit}"
        if told is not None:
            found[field] = told
    if (template := _chat_template(config)) is not None:
        found["chat_template"] = template
    return found


REMEDY = (
    "results of other inputs are not pooled: put back what it began with (of a model on the Hub, "
    "HF_HUB_OFFLINE=1 takes what is in the cache), or run this as a study of its own"
)


def changes(
    called: Mapping[str, str], then: Mapping[str, str], now: Mapping[str, str]
) -> list[str]:
    """Say which inputs are others than they were; one that is not known is compared with nothing.

    Args:
        called: What each input is called, by field.
        then: Their identities when the study began, by field.
        now: The same, later.
    """
    return [
        f"{WORDS.get(field, field)} ({called.get(field, field)}): {short(then[field])} when the "
        f"study began, {short(now[field])} now"
        for field in then
        if now.get(field, then[field]) != then[field]
    ]


def refuse_others(
    config: ExperimentConfig, then: Mapping[str, str], now: Mapping[str, str]
) -> None:
    """Refuse to measure an experiment whose inputs have changed since its study began.

    Raises:
        ExperimentError: They have; the message names both identities of each.
    """
    if told := changes(names(config), then, now):
        raise ExperimentError(f"{'; '.join(told)}; {REMEDY}", where="prepare")


def names(config: ExperimentConfig) -> dict[str, str]:
    """Tell what a configuration calls each of its inputs, by field.

    Configurations with the same name for an input are to get the same one. The tokens of synthetic
    prompts are drawn from a tokenizer, and tokenizers are an engine's own.
    """
    model = config.model if config.revision is None else f"{config.model} at {config.revision}"
    tokenizer = f"{model}, {config.backend}"
    dataset = config.dataset
    if isinstance(dataset, DatasetFile):
        own = {"column": dataset.column, "limit_column": dataset.limit_column}
        said = (f", {name} {column}" for name, column in own.items() if column)
        dataset = "".join((dataset.path, *said))
    elif isinstance(dataset, SyntheticDataset):
        shape = dataset.synthetic.model_dump_json(exclude_none=True)
        dataset = f"synthetic {shape}, {config.n}, {tokenizer}"
    given = {
        "dataset": dataset,
        "tokenizer": tokenizer,
        "chat_template": tokenizer if _may_apply_template(config) else None,
        "model": model,
        "lora": _adapter(config),
        "decoder.draft_model": config.decoder.draft_model,
    }
    return {field: name for field, name in given.items() if name}


def short(identity: str) -> str:
    """Cut a long hash to what tells it from others."""
    return identity if len(identity) < 32 else " ".join(w[:12] for w in identity.split(" "))


def _adapter(config: ExperimentConfig) -> str | None:
    lora = config.lora
    return None if lora is None else lora.adapter_path or lora.adapter_id


def _may_apply_template(config: ExperimentConfig) -> bool:
    return config.apply_chat_template or config.has_prompt_file  # which may hold chats


def _chat_template(config: ExperimentConfig) -> str | None:
    """Identify the chat template of a model whose own identity does not tell it."""
    source = sources.resolve(config.model)
    if source.kind != "random" or source.path is None or not _may_apply_template(config):
        return None
    try:
        return tokenizer_files.template_fingerprint(source.path)
    except OSError:  # pre-flight, or the engine, says what is wrong with it
        return None


def _identity(source: sources.ModelSource, config_file: str, hub: Hub, *, ask: bool) -> str | None:
    if source.kind == "hub":
        found = hub.commit(source.name, source.revision, config_file, ask=ask)
        return f"commit {found}" if found else None
    try:
        if source.kind == "random":
            config = sources.read_config(source)
            return f"config {canonical_hash(config)}"
        return f"files {_fingerprint(source.path)}" if source.path else None
    except (ConfigError, OSError):  # pre-flight, or the engine, says what is wrong with it
        return None


def _fingerprint(folder: Path) -> str:
    files = [path for path in folder.iterdir() if path.is_file()]
    if not any(path.suffix in sources.WEIGHTS for path in files):
        files = [path for path in folder.rglob("*") if path.is_file()]
    digest = hashlib.sha256()
    for path in sorted(files):
        if path.suffix in (*sources.WEIGHTS, *_SETTINGS):
            size = path.stat().st_size
            digest.update(f"{path.relative_to(folder)}\0{size}\0".encode(errors="surrogateescape"))
            for part in _parts(path, size):
                digest.update(part)
    return digest.hexdigest()[:16]


def _parts(path: Path, size: int) -> Iterator[bytes]:
    """Yield a small file, or pieces of a large one from its beginning to its end."""
    with path.open("rb", buffering=0) as file:
        if size <= _WHOLE_BYTES:
            yield file.read()
            return
        yield file.read(_WHOLE_BYTES)
        for look in range(1, _LOOKS + 1):
            file.seek((size - _LOOK_BYTES) * look // _LOOKS)
            yield file.read(_LOOK_BYTES)
