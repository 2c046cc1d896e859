"""Analytic floating-point operations, and how much of a device's peak they come to.

Multiplications and additions each count as one operation. A pass over a token costs 2 operations
for each weight it is multiplied with; attention costs 4 x heads x head_dim in each layer for each
pair of query and key (2 for the scores, 2 for the weighted sum), see Kaplan et al. 2020,
section 2.1 (https://arxiv.org/abs/2001.08361). Recurrences and convolutions cost what
``core.models.layers`` says. Norms, activations, rotary embeddings and softmax are left out, and so
are LoRA adapters that are not merged. Quantisation changes nothing here.

Useful is what the answer needs: causal pairs, within a window where a layer has one. Executed is
what the engine computed for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from llenergymeasure.config.names import WEIGHT_BITS, Precision, compute_bytes
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.core.models.layers import Layer, Mixer
from llenergymeasure.core.peaks import DevicePeak
from llenergymeasure.domain.results import FlopsPhase, FlopsResult
from llenergymeasure.domain.samples import RequestSample
from llenergymeasure.units import NS_PER_S

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from llenergymeasure.core.models.layers import Counts

    Flags = NDArray[np.bool_]
    Whole = NDArray[np.int64]


class RequestTokens(NamedTuple):
    """Token counts of requests, one element each, as in ``RequestSample``."""

    input_tokens: Counts  # (requests,)
    padded_input_tokens: Counts  # (requests,)
    output_tokens: Counts  # (requests,)
    executed_output_tokens: Counts  # (requests,)
    cached_input_tokens: Counts  # (requests,); unknown counts as none
    masked: Flags  # (requests,); whether any prompt of the batch is padded

    @classmethod
    def of(
        cls,
        input_tokens: ArrayLike,
        output_tokens: ArrayLike,
        padded_input_tokens: ArrayLike | None = None,
        executed_output_tokens: ArrayLike | None = None,
    ) -> Self:
        """Build from sequences, of one batch; what was executed is by default what was useful."""
        import numpy as np

        padded = input_tokens if padded_input_tokens is None else padded_input_tokens
        executed = output_tokens if executed_output_tokens is None else executed_output_tokens
        inputs, padded_inputs, outputs, executed_outputs = (
            np.asarray(column, dtype=np.float64)
            for column in (input_tokens, padded, output_tokens, executed)
        )
        masked = np.full(inputs.shape, (padded_inputs > inputs).any())
        return cls(inputs, padded_inputs, outputs, executed_outputs, inputs * 0, masked)

    @classmethod
    def from_samples(cls, samples: Iterable[RequestSample]) -> Self:
        """Take the counts of the requests that ended well."""
        import numpy as np

        done = [sample for sample in samples if sample.finish != "failed"]
        rows = [
            (
                s.input_tokens,
                s.computed_input_tokens,
                s.output_tokens,
                s.computed_output_tokens,
                s.cached_input_tokens or 0,
            )
            for s in done
        ]
        # Processes number their batches alike, but do not begin them in the same nanosecond.
        batches = [(s.pass_index, s.batch_index, s.scheduled_ns) for s in done]
        padded = {batch for batch, row in zip(batches, rows, strict=True) if row[1] > row[0]}
        masked = np.array([batch in padded for batch in batches], dtype=np.bool_)
        inputs, computed, outputs, steps, cached = np.array(rows, np.float64).reshape(-1, 5).T
        return cls(inputs, computed, outputs, steps, cached, masked)


class Execution(NamedTuple):
    """What an engine computes beyond what an answer needs, as far as its settings tell.

    Attributes:
        squares: Whose prefill takes every pair of the batch's tokens and masks those that are not
            causal: no batch's, one's that needs a mask (its prompts are padded, or longer than a
            layer's window), or every batch's.
        transformers: Whether transformers' own code ran the model: it reads a window of keys where
            attention is in chunks, expands all of a compressed cache in each pass, and computes
            every expert of some families.
    """

    squares: Literal["none", "masked", "all"] = "none"
    transformers: bool = False

    @classmethod
    def of(cls, resolved: Mapping[str, Any]) -> Self:
        """Tell from the settings in force; engines that page their cache compute causal pairs.

        ``sdpa`` gets a mask where the batch needs one, and always once it is compiled
        (transformers, ``masking_utils._ignore_causal_mask_sdpa``); without one its kernels stop at
        the diagonal. Flash and flex attention skip what is masked.
        """
        kernel = resolved.get("attn_implementation")
        if kernel is None:
            return cls()
        squares: Literal["none", "masked", "all"] = "none"
        if kernel == "eager":
            squares = "all"
        elif kernel == "sdpa":
            squares = "all" if resolved.get("torch_compile") else "masked"
        return cls(squares, transformers=True)


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
    architecture: ModelArchitecture,
    tokens: RequestTokens,
    beams: int = 1,
    execution: Execution | None = None,
) -> Operations:
    """Count the operations of a set of requests.

    Args:
        architecture: Shape of the model.
        tokens: What each request took and gave.
        beams: Rows that the engine computed a request; only one of them is useful.
        execution: What the engine computes besides; by default nothing but padding.
    """
    useful = tokens.input_tokens, tokens.output_tokens
    executed = tokens.padded_input_tokens, tokens.executed_output_tokens
    engine = execution or Execution()
    return Operations(
        prefill_flops(architecture, useful[0]),
        decode_flops(architecture, *useful),
        prefill_flops(
            architecture,
            executed[0],
            beams,
            tokens.cached_input_tokens,
            execution=engine,
            masked=tokens.masked,
        ),
        decode_flops(architecture, *executed, beams, engine),
    )


def prefill_flops(  # noqa: PLR0913 - what is useful needs the first two
    architecture: ModelArchitecture,
    lengths: Counts,
    rows: int = 1,
    cached: Counts | None = None,
    *,
    execution: Execution | None = None,
    masked: Flags | None = None,
) -> FlopsPhase:
    """Count the operations of prefills, one a request, each with one row of logits.

    Args:
        architecture: Shape of the model.
        lengths: Tokens of each prompt, shape (requests,).
        rows: Identical rows a request.
        cached: Tokens at the beginning of each that a prefix cache had, and that are not computed.
        execution: How an engine computed them; ``None`` for what is useful.
        masked: Whether the batch of each is padded, shape (requests,).
    """
    import numpy as np

    before = lengths * 0 if cached is None else cached
    squares = "none" if execution is None else execution.squares
    skips = execution is None or (execution.transformers and squares != "none")

    def start(layer: Layer) -> Counts:
        return (lengths - 1).clip(min=0) if layer.last_token_only and skips else before

    def pairs(mixer: Mixer, first: Counts) -> Counts:
        causal = mixer.pairs(lengths) - mixer.pairs(first)
        if squares == "none":
            return causal
        needs_mask = squares == "all" or (mixer.sees is not None and lengths >= mixer.sees)
        square = needs_mask if masked is None else needs_mask | masked
        return np.where(square, (lengths - first) * lengths, causal)

    span = _Span(before, lengths, rows, lengths.size)
    return _phase(architecture, span, execution, start, pairs)


def decode_flops(
    architecture: ModelArchitecture,
    lengths: Counts,
    outputs: Counts,
    rows: int = 1,
    execution: Execution | None = None,
) -> FlopsPhase:
    """Count the operations of decoding: one pass for each output token but the first.

    Args:
        architecture: Shape of the model.
        lengths: Tokens of each prompt, shape (requests,).
        outputs: Tokens each request produced, shape (requests,).
        rows: Identical rows a request.
        execution: How an engine computed them; ``None`` for what is useful.
    """
    passes = _decode_passes(outputs)
    after = lengths + passes
    in_transformers = execution is not None and execution.transformers

    def pairs(mixer: Mixer, first: Counts) -> Counts:
        seen = mixer.cache_reads if in_transformers else mixer.pairs
        return seen(after) - seen(first)

    def again(mixer: Mixer) -> float:
        reads = mixer.cache_reads(after) - mixer.cache_reads(lengths)
        return mixer.expand * float((reads - passes).sum()) if in_transformers else 0.0

    span = _Span(lengths, after, rows, float(passes.sum()))
    return _phase(architecture, span, execution, lambda _: lengths, pairs, again)


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
        before: Tokens of each request before its first decode pass, shape (requests,).
        after: Tokens after its last one.
        rows: Rows computed a request.
        seconds: Time from first tokens to last ones, summed over batches.
    """

    steps: int
    mean_rows: float
    before: Counts
    after: Counts
    rows: int
    seconds: float

    @property
    def context_tokens(self) -> float:
        """Tokens of context, over all rows and passes."""
        passes = self.after - self.before
        return float((passes * self.before + passes * (passes + 1) / 2).sum()) * self.rows


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
        before=lengths,
        after=lengths + _decode_passes(outputs),
        rows=beams,
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

    (Weight bytes a step x steps + bytes of KV cache and of recurrent state read) / decode time /
    (peak bandwidth x devices), after https://www.databricks.com/blog/llm-inference-performance-engineering-best-practices.
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
    read = sum(
        weight_bytes_read(architecture, precision, one.mean_rows) * one.steps
        + float(architecture.kv_values_read(one.before, one.after).sum())
        * one.rows
        * compute_bytes(precision)
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


class _Span(NamedTuple):
    """What a phase computes: the tokens after ``before`` and up to ``after``, shape (requests,)."""

    before: Counts
    after: Counts
    rows: int  # identical ones a request
    logits: float  # rows of logits of one each


def _phase(  # noqa: PLR0913, PLR0917 - what both phases say
    architecture: ModelArchitecture,
    span: _Span,
    execution: Execution | None,
    start: Callable[[Layer], Counts],
    pairs: Callable[[Mixer, Counts], Counts],
    again: Callable[[Mixer], float] | None = None,
) -> FlopsPhase:
    """Sum over kinds of layers, each of which computes tokens from its own ``start``.

    ``again`` counts products with weights beside one a token.
    """
    transformers = execution is not None and execution.transformers
    linear = 2.0 * architecture.outer_matrices * float((span.after - span.before).sum())
    attention = recurrence = 0.0
    for layer, count in architecture.stack:
        first = start(layer)
        tokens = count * float((span.after - first).sum())
        linear += 2.0 * layer.computed(transformers) * tokens
        for mixer in layer.mixers:
            attention += 2.0 * count * mixer.pair_width * float(pairs(mixer, first).sum())
            recurrence += mixer.scan * tokens
            linear += 2.0 * count * (again(mixer) if again else 0.0)
    lm_head = 2.0 * architecture.lm_head_parameters * span.logits
    items = [span.rows * item for item in (linear, attention, recurrence, lm_head)]
    return FlopsPhase(
        linear=items[0],
        attention=items[1],
        recurrence=items[2],
        lm_head=items[3],
        total=sum(items),
    )


def _decode_passes(outputs: Counts) -> Counts:
    return (outputs - 1).clip(min=0)
