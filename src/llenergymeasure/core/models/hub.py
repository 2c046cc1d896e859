"""The Hugging Face Hub: what is in its cache, and why a model cannot be fetched.

https://huggingface.co/docs/huggingface_hub/package_reference/utilities#errors
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from llenergymeasure.config.secrets import redact
from llenergymeasure.core.models import catalogue
from llenergymeasure.exceptions import Problem

CONFIG_FILE = "config.json"
ADAPTER_FILE = "adapter_config.json"
_UNREACHABLE = "'{repo}' is not in the Hub cache, and the Hub cannot be reached ({detail})"
_RECONNECT = "check the network, HF_ENDPOINT and HF_HUB_OFFLINE; {offline}"


@dataclass(frozen=True, slots=True)
class Hub:
    """A Hub and its local cache.

    Attributes:
        endpoint: Address of the Hub; by default what ``HF_ENDPOINT`` says, else huggingface.co.
        cache_dir: Where files are kept; by default what ``HF_HUB_CACHE`` says.
        timeout_s: How long to wait for an answer, s.
    """

    endpoint: str | None = None
    cache_dir: Path | None = None
    timeout_s: float = 5.0

    def cached(self, repo_id: str, filename: str, revision: str | None) -> Path | None:
        """Locate a file in the cache, or give ``None``; never touches the network."""
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            found = try_to_load_from_cache(
                repo_id, filename, cache_dir=self.cache_dir, revision=revision
            )
        except HFValidationError:
            return None
        return Path(found) if isinstance(found, str) else None

    def fetched(self, repo_id: str, filename: str, revision: str | None) -> Path | None:
        """Locate a file in the cache, fetched first where it is not there yet.

        Gives ``None`` where the repository has no such file or the Hub cannot be reached.
        """
        if (found := self.cached(repo_id, filename, revision)) is not None:
            return found
        try:
            return self._download(repo_id, filename, revision)
        except _refusals():
            return None

    def commit(
        self, repo_id: str, revision: str | None, filename: str = CONFIG_FILE, *, ask: bool = False
    ) -> str | None:
        """Tell what commit a revision stands for, or ``None`` where that is not known.

        Args:
            repo_id: Owner and name.
            revision: Branch, tag or commit.
            filename: A file of the repository.
            ask: Whether to ask the Hub, which may have moved a branch on since it was cached.
        """
        if ask:
            from huggingface_hub import get_hf_file_metadata, hf_hub_url

            try:
                url = hf_hub_url(repo_id, filename, revision=revision, endpoint=self.endpoint)
                return get_hf_file_metadata(url, timeout=self.timeout_s).commit_hash
            except _refusals():  # the engine will take what is in the cache too
                pass
        found = self.cached(repo_id, filename, revision)
        return found.parent.name if found and found.parent.parent.name == "snapshots" else None

    def problem(
        self, repo_id: str, revision: str | None, filename: str = CONFIG_FILE
    ) -> Problem | None:
        """Make sure that a file is in the cache, fetched if need be; say why where it cannot be.

        Args:
            repo_id: Owner and name.
            revision: Branch, tag or commit.
            filename: ``config.json`` of a model, or ``adapter_config.json`` of an adapter.
        """
        if self.cached(repo_id, filename, revision):
            return None
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        try:
            # Asking for the metadata first fails at once; the download alone would retry for a
            # minute.
            url = hf_hub_url(repo_id, filename, revision=revision, endpoint=self.endpoint)
            get_hf_file_metadata(url, timeout=self.timeout_s)
            self._download(repo_id, filename, revision)
        except _refusals() as error:
            return _explain(error, repo_id, revision, filename)
        return None

    def _download(self, repo_id: str, filename: str, revision: str | None) -> Path:
        from huggingface_hub import hf_hub_download

        found = hf_hub_download(
            repo_id,
            filename,
            revision=revision,
            endpoint=self.endpoint,
            cache_dir=self.cache_dir,
            etag_timeout=self.timeout_s,
        )
        return Path(found)


def _refusals() -> tuple[type[Exception], ...]:
    """Name what huggingface_hub raises where it gives no file.

    The HTTP library differs between its versions, and that one's base error does not descend from
    OSError in all of them.
    """
    from huggingface_hub import errors

    http_error = errors.HTTPError  # type: ignore[attr-defined]
    return (http_error, OSError, errors.EntryNotFoundError, errors.HFValidationError)


class _Routes(NamedTuple):
    """What a user can name instead of a repository that does not give a file."""

    offline: str
    local: str
    possible: str
    other: str


_ROUTES = {
    CONFIG_FILE: _Routes(
        "without the Hub, set model to a local directory, or measure an architecture with random "
        "weights, e.g. model: random:tiny-llama",
        "for a local directory write a path, e.g. ./{repo}",
        "use owner/name, a path such as ./my-model, or random:<architecture>",
        "name a repository that holds a transformers model; for an adapter set lora.adapter_id",
    ),
    ADAPTER_FILE: _Routes(
        "without the Hub, set lora.adapter_path to a local directory",
        "for a local directory set lora.adapter_path",
        "use owner/name, or set lora.adapter_path",
        "name a repository that holds an adapter, as peft's push_to_hub writes it",
    ),
}


class _Explanation(NamedTuple):
    """What an error of huggingface_hub means.

    Texts take ``repo``, ``revision``, ``detail``, ``file`` and the routes by name.
    """

    error: str
    what: str
    remedy: str
    where: str = "model"


# The more special errors stand before the more general ones they descend from.
_EXPLANATIONS = (
    _Explanation(
        "HFValidationError",
        "'{repo}' is neither a local directory nor a possible name on the Hub",
        "{possible}",
    ),
    _Explanation(
        "OfflineModeIsEnabled",
        "'{repo}' is not in the Hub cache, and HF_HUB_OFFLINE forbids fetching it",
        "unset HF_HUB_OFFLINE; {offline}",
    ),
    _Explanation(
        "GatedRepoError",
        "'{repo}' is gated, and this machine has no token with access to it",
        "accept the licence at https://huggingface.co/{repo}, then set HF_TOKEN to a token of "
        "the account that did",
    ),
    _Explanation(
        "RepositoryNotFoundError",
        "'{repo}' is not on the Hub, or is private",
        "check the spelling; for a private one set HF_TOKEN; {local}",
    ),
    _Explanation(
        "RevisionNotFoundError",
        "'{repo}' has no revision '{revision}'",
        "choose a branch, tag or commit from https://huggingface.co/{repo}/tree/main, or remove "
        "the line",
        where="revision",
    ),
    _Explanation("LocalEntryNotFoundError", _UNREACHABLE, _RECONNECT),
    _Explanation(
        "EntryNotFoundError",
        "'{repo}' has no {file}",
        "{other}",
    ),
    _Explanation(
        "HfHubHTTPError",
        "the Hub refused '{repo}': {detail}",
        "check HF_TOKEN and https://status.huggingface.co; {offline}",
    ),
)
_OTHERWISE = _Explanation("", _UNREACHABLE, _RECONNECT)


def _explain(error: Exception, repo_id: str, revision: str | None, filename: str) -> Problem:
    from huggingface_hub import errors

    matches = (row for row in _EXPLANATIONS if isinstance(error, getattr(errors, row.error)))
    row = next(matches, _OTHERWISE)
    about = {"repo": repo_id, "revision": revision, "detail": redact(_first_line(error))}
    routes = {name: text.format(**about) for name, text in _ROUTES[filename]._asdict().items()}
    words = {**about, **routes, "file": filename}
    mistaken = repo_id in catalogue.names()
    remedy = "did you mean 'random:{repo}'?" if mistaken else row.remedy
    return Problem(row.what.format(**words), row.where, remedy.format(**words))


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
