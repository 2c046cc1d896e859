"""Analytic floating-point operations, and how much of a device's peak they come to.

Multiplications and additions each count as one operation. A pass over a token costs 2 operations
for each weight it is multiplied with; attention costs 4 x layers x heads x head_dim for each pair
of query and key (2 for the scores, 2 for the weighted sum), see Kaplan et al. 2020, section 2.1
(https://arxiv.org/abs/2001.08361). Norms, activations, rotary embeddings and softmax are left out,
and so are LoRA adapters that are not merged. Quantisation changes nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Self

from llenergymeasure.config.names import WEIGHT_BITS, Precision, compute_bytes
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.core.peaks import DevicePeak
from llenergymeasure.domain.results import FlopsPhase, FlopsResult
from llenergymeasure.domain.samples import RequestSample
from llenergymeasure.units import NS_PER_S

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Counts = NDArray[np.float64]  # exact up to 2^53, and sums of squares do not overflow
    Whole = NDArray[np.int64]


class RequestTokens(NamedTuple):
    """Token counts of requests, one element each, as in ``RequestSample``."""

    input_tokens: Counts  # (requests,)
    padded_input_tokens: Counts  # (requests,)
    output_tokens: Counts  # (requests,)
    executed_output_tokens: Counts  # (requests,)
    cached_input_tokens: Counts  # (requests,); unknown counts as none

    @classmethod
    def of(
        cls,
        input_tokens: ArrayLike,
        output_tokens: ArrayLike,
        padded_input_tokens: ArrayLike | None = None,
        executed_output_tokens: ArrayLike | None = None,
    ) -> Self:
        """Build from sequences; what was executed is by default what was useful."""
        import numpy as np

        padded = input_tokens if padded_input_tokens is None else padded_input_tokens
        executed = output_tokens if executed_output_tokens is None else executed_output_tokens
        cached = np.zeros_like(input_tokens)
        columns = (input_tokens, padded, output_tokens, executed, cached)
        return cls(*(np.asarray(column, dtype=np.float64) for column in columns))

    @classmethod
    def from_samples(cls, samples: Iterable[RequestSample]) -> Self:
        """Take the counts of the requests that ended well."""
        import numpy as np

        rows = [
            (
                s.input_tokens,
                s.computed_input_tokens,
                s.output_tokens,
                s.computed_output_tokens,
                s.cached_input_tokens or 0,
            )
            for s in samples
            if s.finish != "failed"
        ]
        return cls(*np.array(rows, dtype=np.float64).reshape(-1, 5).T)


class Operations(NamedTuple):
    """Operations of a set of requests: what was asked for, and what the engine computed for it."""

    useful_prefill: FlopsPhase
    useful_decode: FlopsPhase
    executed_prefill: FlopsPhase
    executed_decode: FlopsPhase

    @property
    def useful_total(self) -> float:
        """Useful operations of both phases."""
        return self.useful_prefill.total + self.useful_decode.total

    @property
    def executed_total(self) -> float:
        """Executed operations of both phases."""
        return self.executed_prefill.total + self.executed_decode.total


def count_operations(
    architecture: ModelArchitecture, tokens: RequestTokens, beams: int = 1
) -> Operations:
    """Count the operations of a set of requests.

    Args:
        architecture: Shape of the model.
        tokens: What each request took and gave.
        beams: Rows that the engine computed a request; only one of them is useful.
    """
    useful = tokens.input_tokens, tokens.output_tokens
    executed = tokens.padded_input_tokens, tokens.executed_output_tokens
    return Operations(
        prefill_flops(architecture, useful[0]),
        decode_flops(architecture, *useful),
        prefill_flops(architecture, executed[0], beams, tokens.cached_input_tokens),
        decode_flops(architecture, *executed, beams),
    )


def prefill_flops(
    architecture: ModelArchitecture, lengths: Counts, rows: int = 1, cached: Counts | None = None
) -> FlopsPhase:
    """Count the operations of prefills, one a request, each with one row of logits.

    Args:
        architecture: Shape of the model.
        lengths: Tokens of each prompt, shape (requests,).
        rows: Identical rows a request.
        cached: Tokens at the beginning of each that a prefix cache had, and that are not computed.
    """
    tokens, pairs = lengths.sum(), _causal_pairs(lengths)
    if cached is not None:
        tokens, pairs = tokens - cached.sum(), pairs - _causal_pairs(cached)
    return _phase(architecture, rows * tokens, rows * pairs, rows * lengths.size)


def _causal_pairs(lengths: Counts) -> float:
    """Count pairs of query and key: a token sees itself and those before it."""
    return float((lengths * (lengths + 1) / 2).sum())


def decode_flops(
    architecture: ModelArchitecture, lengths: Counts, outputs: Counts, rows: int = 1
) -> FlopsPhase:
    """Count the operations of decoding: one pass for each output token but the first.

    Args:
        architecture: Shape of the model.
        lengths: Tokens of each prompt, shape (requests,).
        outputs: Tokens each request produced, shape (requests,).
        rows: Identical rows a request.
    """
    passes = _decode_passes(outputs).sum()
    pairs = _context_tokens(lengths, outputs).sum()
    return _phase(architecture, rows * passes, rows * pairs, rows * passes)


def mfu(
    useful_flops: float, seconds: float, peak: DevicePeak | None, precision: Precision, devices: int
) -> float | None:
    """Give model FLOPs utilisation, a share of 1; ``None`` for an unknown device.

    Useful operations / time / (dense peak of the compute type x devices), after Chowdhery et al.
    2022, appendix B (https://arxiv.org/abs/2204.02311).
    """
    if peak is None or seconds <= 0:
        return None
    return useful_flops / seconds / (peak.compute_tflops(precision) * 1e12 * devices)


class DecodeTraffic(NamedTuple):
    """What decoding read from memory, and how long it took.

    Attributes:
        steps: Decode passes over a batch.
        mean_rows: Rows a pass, on average.
        context_tokens: Tokens of KV cache read, over all rows and passes.
        seconds: Time from first tokens to last ones, summed over batches.
    """

    steps: int
    mean_rows: float
    context_tokens: float
    seconds: float


def static_traffic(samples: Iterable[RequestSample], beams: int = 1) -> DecodeTraffic | None:
    """Reconstruct the decode passes of static batches, finished rows included.

    Args:
        samples: Requests of one process: batches are numbered from 0 in each.
        beams: Rows that the engine computed a request.

    Returns:
        The traffic, or ``None`` where no batch decoded. For engines that batch continuously the
        samples do not tell, and this must not be used.
    """
    done = [sample for sample in samples if sample.finish != "failed"]
    if not done or any(sample.batch_index is None for sample in done):
        return None
    import numpy as np

    numbers: dict[tuple[int, int | None], int] = {}  # of the batches of all passes, from 0
    keys = ((sample.pass_index, sample.batch_index) for sample in done)
    batch = np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
    tokens = RequestTokens.from_samples(done)
    lengths, outputs = tokens.padded_input_tokens, tokens.executed_output_tokens
    each = np.zeros(len(numbers))  # (batches,): decode passes, those of the longest row
    np.maximum.at(each, batch, _decode_passes(outputs))
    never, always = np.iinfo(np.int64).max, np.iinfo(np.int64).min
    first, last = np.full(len(numbers), never), np.full(len(numbers), always)  # (batches,)
    firsts = [never if s.first_token_ns is None else s.first_token_ns for s in done]
    lasts = [always if s.last_token_ns is None else s.last_token_ns for s in done]
    np.minimum.at(first, batch, np.array(firsts, np.int64))
    np.maximum.at(last, batch, np.array(lasts, np.int64))
    known = (first != never) & (last != always)
    seconds = float((last[known] - first[known]).sum()) / NS_PER_S
    steps = each.sum()
    if steps == 0 or seconds <= 0:
        return None
    return DecodeTraffic(
        steps=int(steps),
        mean_rows=float(each[batch].sum() / steps * beams),
        context_tokens=float(_context_tokens(lengths, outputs).sum()) * beams,
        seconds=seconds,
    )


def mbu(
    architecture: ModelArchitecture,
    traffic: Sequence[DecodeTraffic],
    peak: DevicePeak | None,
    precision: Precision,
    devices_each: int = 1,
) -> float | None:
    """Give model bandwidth utilisation of decoding, a share of 1; ``None`` where unknown.

    (Weight bytes a step x steps + KV-cache bytes read) / decode time / (peak bandwidth x devices),
    after https://www.databricks.com/blog/llm-inference-performance-engineering-best-practices.
    Bytes and times are summed over processes, each of which has a copy of the weights. Over several
    devices of a process each reads its shard.

    Args:
        architecture: Shape of the model.
        traffic: What each process that decoded read, and how long it took.
        peak: Of one device.
        precision: Of the weights.
        devices_each: Devices of each process, which are no other process's.
    """
    seconds = sum(one.seconds for one in traffic)
    if peak is None or seconds <= 0:
        return None
    per_token = architecture.kv_bytes_per_token(compute_bytes(precision))
    read = sum(
        weight_bytes_read(architecture, precision, one.mean_rows) * one.steps
        + per_token * one.context_tokens
        for one in traffic
    )
    return read / seconds / (peak.bandwidth_gb_s * 1e9 * devices_each)


def weight_bytes_read(architecture: ModelArchitecture, precision: Precision, rows: float) -> float:
    """Count the bytes of weights that one decode pass reads.

    The input embeddings are left out (a pass looks up a few rows), the output embeddings are not,
    tied or otherwise. Of a mixture's experts, those that the rows are expected to visit under
    uniform routing: E (1 - (1 - k/E)^rows) of E.
    """
    moe = architecture.experts
    visited = None
    if moe is not None:
        visited = moe.total * (1 - (1 - moe.active / moe.total) ** rows)
    unquantised = architecture.lm_head_parameters + architecture.vector_parameters
    linear = architecture.linear_parameters(visited) * WEIGHT_BITS[precision] / 8
    return linear + unquantised * compute_bytes(precision)


def flops_result(
    work: Operations,
    *,
    mfu_share: float | None = None,
    mbu_share: float | None = None,
    peak: DevicePeak | None = None,
) -> FlopsResult:
    """Put the figures together as a result stores them."""
    return FlopsResult(
        **work._asdict(),
        useful_total=work.useful_total,
        executed_total=work.executed_total,
        mfu=mfu_share,
        mbu=mbu_share,
        peak_source=peak.name if peak else None,
    )


def _phase(architecture: ModelArchitecture, tokens: float, pairs: float, rows: float) -> FlopsPhase:
    linear = 2.0 * architecture.linear_parameters_active * float(tokens)
    attention = 4.0 * architecture.layers * architecture.attention_width * float(pairs)
    lm_head = 2.0 * architecture.lm_head_parameters * float(rows)
    total = linear + attention + lm_head
    return FlopsPhase(linear=linear, attention=attention, lm_head=lm_head, total=total)


def _decode_passes(outputs: Counts) -> Counts:
    return (outputs - 1).clip(min=0)


def _context_tokens(lengths: Counts, outputs: Counts) -> Counts:
    """Sum the context of each decode pass: length + 1, length + 2, ... of each request."""
    passes = _decode_passes(outputs)
    return passes * lengths + passes * (passes + 1) / 2
