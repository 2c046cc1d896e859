"""A backend that keeps to a script of latencies and failures instead of computing.

It drives a whole experiment without an engine: for tests, documentation and rehearsals. Where a
load log is named, each change of load is appended to it as a line of monotonic seconds and watts,
which a simulated device can integrate.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from llenergymeasure.config.backend_configs import ScriptedConfig
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.protocol import (
    WARMUP_PASS,
    Batch,
    EngineReport,
    Progress,
    Request,
)
from llenergymeasure.core.backends.shared.engines import static_batches
from llenergymeasure.core.backends.shared.memory import ResidentSet
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.prompts import Message
from llenergymeasure.domain.samples import RequestSample
from llenergymeasure.exceptions import BackendError, Problem

VOCABULARY = 32_000


class WordTokenizer:
    """One token a word, by hash; enough to count."""

    def encode(self, text: str) -> list[int]:
        """Tokenise by white space."""
        digests = (hashlib.sha256(word.encode()).digest() for word in text.split())
        return [int.from_bytes(digest[:4], "big") % VOCABULARY for digest in digests]

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Tokenise the words of all turns, without anything around them."""
        return self.encode(" ".join(message.content for message in messages))

    def ordinary_ids(self) -> Sequence[int]:
        """List every id."""
        return range(VOCABULARY)


class LoadLog:
    """Appends changes of load to a file; does nothing without one."""

    def __init__(self, path: str | None) -> None:
        self._path = Path(path) if path else None

    def write(self, watts: float) -> None:
        """Note that the load is ``watts`` from now on."""
        if self._path is not None:
            with self._path.open("a", encoding="ascii") as log:
                log.write(f"{time.monotonic():.9f} {watts:g}\n")


@dataclass(frozen=True, slots=True)
class ScriptedTrace:
    """One pass, its samples already known."""

    rows: tuple[RequestSample, ...]

    def samples(self) -> tuple[RequestSample, ...]:
        """Give one sample a request."""
        return self.rows


class ScriptedEngine:
    """Sleeps where an engine would compute."""

    def __init__(self, config: ExperimentConfig, section: ScriptedConfig) -> None:
        self._config, self._section = config, section
        self.tokenizer = WordTokenizer()
        self._log = LoadLog(section.load_log)
        self._log.write(section.idle_w)
        self._resident = ResidentSet()

    def plan(self, requests: Sequence[Request]) -> tuple[Batch, ...]:
        """Cut requests into batches in their given order."""
        return static_batches(requests, self._section.batch_size)

    def run(self, batches: Sequence[Batch], pass_index: int, progress: Progress) -> ScriptedTrace:
        """Keep to the script, batch after batch."""
        issued_ns = time.monotonic_ns()
        rows: list[RequestSample] = []
        try:
            for index, batch in enumerate(batches):
                phase = "warmup" if pass_index == WARMUP_PASS else "measure"
                if self._section.fail_at == phase and index >= len(batches) // 2:
                    raise BackendError(
                        f"the script says to fail in {phase} (scripted.fail_at)", where=phase
                    )
                rows += self._play(batch, index, pass_index, issued_ns)
                progress(len(batch))
        finally:
            self._log.write(self._section.idle_w)
        return ScriptedTrace(tuple(rows))

    def inspect(self) -> EngineReport:
        """Report the script as the settings in force."""
        return EngineReport(
            resolved=self._section.model_dump(mode="json"),
            weights="none",
            memory=self._resident.reading(),
            compute_devices=max(1, len(self._section.device_uuids)),
            pads=True,
            notes=("latencies come from a script; nothing was computed",),
        )

    def close(self) -> None:
        """Return the devices to idle."""
        self._log.write(self._section.idle_w)

    def _play(
        self, batch: Batch, index: int, pass_index: int, issued_ns: int
    ) -> list[RequestSample]:
        start_ns = time.monotonic_ns()
        self._log.write(self._section.prefill_w)
        most = self._section.output_tokens or max(request.max_new_tokens for request in batch)
        counts = [
            request.max_new_tokens if request.full_length else min(most, request.max_new_tokens)
            for request in batch
        ]
        arrivals = [_wait(start_ns, self._section.ttft_ms)]
        self._log.write(self._section.decode_w)
        for step in range(1, max(counts)):
            arrivals.append(_wait(start_ns, self._section.ttft_ms + step * self._section.itl_ms))
        delivered_ns = time.monotonic_ns()
        longest = max(len(request.token_ids) for request in batch)
        return [
            RequestSample(
                request=request.index,
                pass_index=pass_index,
                batch_index=index,
                input_tokens=len(request.token_ids),
                padded_input_tokens=longest,
                output_tokens=count,
                executed_output_tokens=max(counts),
                issued_ns=issued_ns,
                scheduled_ns=start_ns,
                first_token_ns=arrivals[0],
                last_token_ns=arrivals[count - 1],
                delivered_ns=delivered_ns,
                gaps_ns=tuple(after - before for before, after in pairwise(arrivals[:count])),
                finish="stop" if count < request.max_new_tokens else "length",
            )
            for request, count in zip(batch, counts, strict=True)
        ]


def _wait(start_ns: int, after_ms: float) -> int:
    """Sleep until a time of the script and tell when it was."""
    left_s = (start_ns - time.monotonic_ns()) / 1e9 + after_ms / 1e3
    if left_s > 0:
        time.sleep(left_s)
    return time.monotonic_ns()


class ScriptedBackend:
    """Makes a scripted engine; nothing can be missing for it."""

    def problems(self, config: ExperimentConfig) -> list[Problem]:
        """List what stops the script: only a load log that cannot be written."""
        log = _section(config).load_log
        if log is None or os.path.isdir(Path(log).parent):  # noqa: PTH112 - Path raises
            return []
        return [Problem(f"no directory for '{log}'", "scripted.load_log", "make the directory")]

    def target(self, config: ExperimentConfig) -> DeviceTarget:
        """Claim the devices the script names."""
        uuids = _section(config).device_uuids
        return DeviceTarget("gpu", uuids) if uuids else DeviceTarget("cpu")

    def load(self, config: ExperimentConfig, cache_dir: Path) -> ScriptedEngine:
        """Load nothing."""
        section = _section(config)
        if section.fail_at == "load":
            raise BackendError("the script says to fail in load (scripted.fail_at)", where="load")
        return ScriptedEngine(config, section)


def _section(config: ExperimentConfig) -> ScriptedConfig:
    return config.scripted or ScriptedConfig()
