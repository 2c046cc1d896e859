"""AIEnergyScore/text_generation: fetched once from the Hub, at one commit, and checked by hash.

https://huggingface.co/datasets/AIEnergyScore/text_generation, Apache-2.0: 1,000 prompts, a third
each from WikiText, OSCAR and UltraChat.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from llenergymeasure import temporary
from llenergymeasure.datasets.files import PromptFile, written
from llenergymeasure.datasets.tables import BadRow
from llenergymeasure.domain.prompts import Prompt
from llenergymeasure.exceptions import PreFlightError, Problem

REPOSITORY = "AIEnergyScore/text_generation"
COMMIT = "2dc92b2ee2cd9776a51ccf08c6c2ab04138370c3"
SIZE = 1000
# Over the lines of every prompt, in file order.
SHA256 = "8f5b4690f81a80f12f55b6a7ad7a7ff2a6f005a02faad1d119e601dcc1bb6214"

_TIMEOUT_S = 10.0
_FORMATS = (".parquet", ".jsonl", ".csv")
_HEADER = {"_provenance": REPOSITORY, "_commit": COMMIT, "_license": "apache-2.0"}
_REMEDY = (
    "use dataset: mixed-1k, which ships with the package, or put the prompts into a .jsonl file "
    "and give its path"
)

# Whatever the Hub's client raises, by the most specific class it is an instance of.
_MESSAGES = {
    "GatedRepoError": "the Hub wants its terms accepted and a token (HF_TOKEN) before it gives it",
    "RepositoryNotFoundError": "the Hub has no such dataset, or not for this token",
    "RevisionNotFoundError": f"the Hub no longer has commit {COMMIT[:12]}",
    "EntryNotFoundError": "the Hub lists a file that it does not have",
    "LocalEntryNotFoundError": "the Hub cannot be reached",
    "OfflineModeIsEnabled": "it is not in the cache, and HF_HUB_OFFLINE forbids to fetch it",
    "HfHubHTTPError": "the Hub answered with an error",
    "HTTPError": "the Hub cannot be reached",
    "ConnectionError": "the Hub cannot be reached",
    "OSError": "its file cannot be written to the cache",
}


def is_cached(cache_dir: Path) -> bool:
    """Tell whether the cache holds the dataset, whole."""
    try:
        rows = PromptFile(_cache_file(cache_dir))
        return _hash([row for row in rows if isinstance(row, Prompt)]) == SHA256
    except OSError:
        return False


def cached_file(cache_dir: Path) -> Path:
    """Give the JSONL file of the dataset, fetched first where the cache does not have it.

    Raises:
        PreFlightError: It cannot be fetched, or what came is not the dataset.
    """
    if not is_cached(cache_dir):
        _fetch(cache_dir)
    return _cache_file(cache_dir)


def offline_problems() -> list[Problem]:
    """Say that the dataset cannot be fetched, where this process may not use the network."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    return [_problem(_MESSAGES["OfflineModeIsEnabled"])] if HF_HUB_OFFLINE else []


def _fetch(cache_dir: Path) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    # The Hub's client has changed its HTTP library more than once; its own error derives from
    # the root of that library's errors.
    errors: tuple[type[Exception], ...] = (OSError, *HfHubHTTPError.__bases__)
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with temporary.folder("fetch", cache_dir) as folder:
            prompts = [Prompt(text=text) for file in _download(folder) for text in _texts(file)]
            if _hash(prompts) != SHA256:
                raise _failure("what the Hub gave has other prompts than it should")
            _write(_cache_file(cache_dir), prompts, folder)
    except errors as error:
        raise _failure(_explain(error)) from error


def _download(folder: Path) -> list[Path]:
    """Fetch the data files, of one format, in the order of their names."""
    from huggingface_hub import HfApi

    hub = HfApi()
    info = hub.dataset_info(REPOSITORY, revision=COMMIT, timeout=_TIMEOUT_S)
    names = sorted(entry.rfilename for entry in info.siblings or [])
    by_format = ([name for name in names if name.endswith(suffix)] for suffix in _FORMATS)
    chosen = next(filter(None, by_format), None)
    if chosen is None:
        raise _failure(f"the Hub lists no {', '.join(_FORMATS)} file")
    return [
        Path(
            hub.hf_hub_download(
                REPOSITORY, name, repo_type="dataset", revision=COMMIT, local_dir=folder
            )
        )
        for name in chosen
    ]


def _texts(path: Path) -> Iterator[str]:
    """Yield the prompts of a file, without the white space around them."""
    for row in PromptFile(path, path.suffix):
        if isinstance(row, BadRow):
            raise _failure(f"{path.name} cannot be read: {row.reason}")
        if isinstance(row, Prompt):
            yield (row.text or "").strip()


def _explain(error: BaseException) -> str:
    names = (kind.__name__ for kind in type(error).__mro__)
    message = next(_MESSAGES[name] for name in names if name in _MESSAGES)
    status = getattr(getattr(error, "response", None), "status_code", None)
    reason = f"HTTP {status}" if status else getattr(error, "strerror", None)
    return f"{message} ({reason})" if reason else message


def _hash(prompts: list[Prompt]) -> str:
    return hashlib.sha256(b"".join(map(written, prompts))).hexdigest()


def _cache_file(cache_dir: Path) -> Path:
    return cache_dir / "datasets" / f"aienergyscore-{COMMIT[:12]}.jsonl"


def _write(path: Path, prompts: list[Prompt], folder: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(_HEADER).encode() + b"\n", *map(written, prompts)]
    beside = folder / path.name
    beside.write_bytes(b"".join(lines))
    beside.replace(path)


def _failure(what: str) -> PreFlightError:
    return PreFlightError([_problem(what)])


def _problem(what: str) -> Problem:
    return Problem(f"aienergyscore cannot be used: {what}", "dataset", _REMEDY)
