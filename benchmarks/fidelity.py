"""Does llem report what a bare generate loop reaches, and what does its peer report?

Every measurement is a fresh process. They alternate A B B A (llem, bare, bare, llem), so a drift of
the machine falls on both alike; each llem is divided by the bare loop beside it. The two bare loops
in the middle, divided by one another, say how much two equal measurements differ here: what the
ratios cannot resolve. optimum-benchmark follows in the same rounds, paired with a bare loop in its
own environment, so that the version of transformers is the same on both sides.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import machine
from llenergymeasure import ExperimentConfig
from llenergymeasure.core.backends.protocol import Batch
from llenergymeasure.core.backends.shared.engines import static_batches
from llenergymeasure.core.models.sources import materialise, resolve
from llenergymeasure.core.models.tokenizers import load_tokenizer
from llenergymeasure.core.workload import build_requests, warmup_batches
from llenergymeasure.datasets.loader import load_dataset

HERE = Path(__file__).parent
LEAST_RATIO = 0.99
MOST_DEVIATION = 0.01
PACKAGES = ("llenergymeasure", "torch", "transformers", "optimum-benchmark", "datasets")
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
Figures = dict[str, Any]


class Case(NamedTuple):
    """What is generated, on every side alike.

    Attributes:
        name: As the table shows it.
        model: As llem's configuration names it.
        precision: Arithmetic of the weights.
        batch_size: Answers at once.
        batches: Batches a pass.
        input_len: Tokens of a prompt.
        output_len: Tokens of an answer.
        rounds: Rounds of A B B A, so twice as many pairs.
        with_peer: Whether optimum-benchmark runs too.
    """

    name: str
    model: str
    precision: str
    batch_size: int
    batches: int
    input_len: int
    output_len: int
    rounds: int
    with_peer: bool = False


CASES = (
    Case("tiny-llama, batch 1", "random:tiny-llama", "fp32", 1, 4, 64, 128, 4, with_peer=True),
    Case("tiny-llama, batch 8", "random:tiny-llama", "fp32", 8, 2, 64, 128, 4, with_peer=True),
    Case("qwen2.5-0.5b, batch 1", "random:qwen2.5-0.5b", "bf16", 1, 1, 32, 32, 3),
)


class Workplace(NamedTuple):
    """Where the runs of one case happen.

    Attributes:
        folder: For files.
        peer_python: Interpreter of the peer's environment.
        min_seconds: Shortest window.
    """

    folder: Path
    peer_python: Path
    min_seconds: float

    @property
    def cache(self) -> Path:
        """The cache of llem, so that neither the user's cache nor settings take part."""
        return self.folder / "cache"

    def call(self, python: Path, script: str, *arguments: str) -> str:
        """Run a script of this folder in a fresh process and give its last line."""
        environment = machine.environment(
            XDG_CACHE_HOME=str(self.cache), XDG_CONFIG_HOME=str(self.folder / "config")
        )
        command = [str(python), str(HERE / script), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=self.folder, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{script} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return done.stdout.strip().rpartition("\n")[2]


def experiment_of(case: Case, min_seconds: float) -> ExperimentConfig:
    """Give llem's configuration of a case."""
    shape = {"input_len": case.input_len, "output_len": case.output_len}
    fields: dict[str, Any] = {
        "model": case.model,
        "precision": case.precision,
        "n": case.batch_size * case.batches,
        "dataset": {"synthetic": shape},
        "max_new_tokens": case.output_len,
        "pytorch": {"batch_size": case.batch_size, "device": "cpu"},
        "energy_backend": "none",
        "baseline": {"enabled": False},
        "warmup": {"n_warmup": 3, "thermal_floor_seconds": 0},
        "window": {"min_duration_seconds": min_seconds},
    }
    return ExperimentConfig.model_validate(fields)


def write_case(case: Case, place: Workplace) -> Path:
    """Write the tokens that llem will generate from, and all else the bare loop needs."""
    config = experiment_of(case, place.min_seconds)
    directory = materialise(resolve(case.model), place.cache)
    tokenizer = load_tokenizer(str(directory))
    ids = tokenizer.ordinary_ids()
    dataset = load_dataset(config.dataset, config.n, cache_dir=place.cache, ordinary_ids=ids)
    requests = build_requests(dataset.prompts, tokenizer, config).requests
    plan = static_batches(requests, case.batch_size)
    warmup = warmup_batches(plan, config.warmup.n_warmup, ids, config.random_seed)
    path = place.folder / "case.json"
    content = {
        "experiment": config.model_dump(mode="json", exclude_defaults=True),
        "model": str(directory),
        "weights": "random",
        "seed": config.random_seed,
        "dtype": DTYPES[case.precision],
        "batches": _tokens(plan),
        "warmup": _tokens(warmup),
        "new_tokens": case.output_len,
        "min_seconds": place.min_seconds,
        "decode_apart": False,
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_peer_case(path: Path, place: Workplace) -> Path:
    """Write the peer's version of a case: saved weights, and one batch, as the peer has it."""
    content = json.loads(path.read_text(encoding="utf-8"))
    saved = place.folder / "weights"
    place.call(place.peer_python, "fidelity_peer.py", "save", str(path), str(saved))
    content.update(model=str(saved), weights="saved", decode_apart=True)
    content.update(batches=content["batches"][:1])
    peer_path = place.folder / "peer_case.json"
    peer_path.write_text(json.dumps(content), encoding="utf-8")
    return peer_path


def measure_round(
    place: Workplace, path: Path, peer_path: Path | None, *, peer_first: bool
) -> Iterator[Figures]:
    """Run A B B A, then the peer's pair; give each run's figures in the order of running."""
    own = Path(sys.executable)
    for side in ("llem", "bare", "bare", "llem"):
        yield {"side": side, **json.loads(place.call(own, f"fidelity_{side}.py", str(path)))}
    if peer_path is None:
        return
    pair = [("peer", "fidelity_peer.py", "run"), ("bare beside the peer", "fidelity_bare.py")]
    for side, *script in pair if peer_first else reversed(pair):
        printed = place.call(place.peer_python, *script, str(peer_path))
        yield {"side": side, **json.loads(printed)}


def pair_ratios(runs: Sequence[Figures], side: str, figure: str) -> list[float]:
    """Divide a side's figure by that of the bare loop beside it, pair by pair."""
    pairs = [runs[start : start + 2] for start in range(0, len(runs), 2)]
    ratios = []
    for pair in pairs:
        by_side = {run["side"] == side: run for run in pair}
        if len(by_side) == 2:
            ratios.append(by_side[True][figure] / by_side[False][figure])
    return ratios


def summarise(rounds: Sequence[Sequence[Figures]]) -> dict[str, Any]:
    """Derive the ratios of a case from its raw runs."""
    runs = [run for one in rounds for run in one]
    bare = [[run["tokens_per_second"] for run in one if run["side"] == "bare"] for one in rounds]
    llem = [run for run in runs if run["side"] == "llem"]
    summary = {
        "llem ÷ bare": _spread(pair_ratios(runs, "llem", "tokens_per_second")),
        "bare ÷ bare": _spread([first / second for first, second in bare]),
        "llem ÷ stopwatch": _spread(
            [run["tokens_per_second"] / run["stopwatch_tokens_per_second"] for run in llem]
        ),
    }
    peer = pair_ratios(runs, "peer", "decode_tokens_per_second")
    if peer:
        summary["optimum-benchmark ÷ bare, decoding"] = _spread(peer)
        whole = pair_ratios(runs, "peer", "tokens_per_second")
        summary["optimum-benchmark ÷ bare, whole answers"] = _spread(whole)
    return summary


def measure(case: Case, rounds: int, peer_python: Path | None, min_seconds: float) -> Figures:
    """Measure one case."""
    with tempfile.TemporaryDirectory(prefix="llem-fidelity-") as folder:
        place = Workplace(Path(folder), peer_python or Path(), min_seconds)
        path = write_case(case, place)
        with_peer = case.with_peer and peer_python is not None
        peer_path = write_peer_case(path, place) if with_peer else None
        done = []
        for number in range(rounds):
            print(f"{case.name}: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            peer_first = number % 2 == 0
            done.append(list(measure_round(place, path, peer_path, peer_first=peer_first)))
    return {"case": case._asdict(), "summary": summarise(done), "rounds": done}


def report(results: dict[str, Any]) -> str:
    """Lay the ratios out as Markdown."""
    facts = results["machine"]
    lines = [
        "# Fidelity",
        "",
        f"Written by `make bench-fidelity`; raw figures in `fidelity.json`. {facts['cpu']}, "
        f"{facts['cores']} cores; windows of at least {results['min_seconds']:g} s.",
        "",
        *(f"- {side}: {_listed(found)}" for side, found in results["versions"].items()),
        "",
        "| case | ratio | pairs | median | least | most |",
        "|---|---|---|---|---|---|",
    ]
    for measured in results["cases"]:
        for name, spread in measured["summary"].items():
            figures = " | ".join(f"{spread[key]:.4f}" for key in ("median", "min", "max"))
            count = len(spread["ratios"])
            lines.append(f"| {measured['case']['name']} | {name} | {count} | {figures} |")
    return "\n".join(lines) + "\n"


def shortfalls(results: dict[str, Any]) -> list[str]:
    """List where a claim does not hold."""
    found = []
    for measured in results["cases"]:
        name, summary = measured["case"]["name"], measured["summary"]
        if summary["llem ÷ bare"]["median"] < LEAST_RATIO:
            found.append(f"{name}: llem ÷ bare is below {LEAST_RATIO}")
        watch = summary["llem ÷ stopwatch"]
        if max(abs(watch["min"] - 1), abs(watch["max"] - 1)) > MOST_DEVIATION:
            found.append(f"{name}: llem and the stopwatch differ by more than {MOST_DEVIATION:.0%}")
    return found


def median_interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Give a median and its 95 % interval, from the ranks (normal approximation)."""
    count, ordered = len(ratios), sorted(ratios)
    reach = 0.98 * math.sqrt(count)  # half of 1.96 standard deviations of a binomial rank
    low = max(0, math.floor(count / 2 - reach) - 1)
    high = min(count - 1, math.ceil(count / 2 + reach))
    return statistics.median(ordered), ordered[low], ordered[high]


def _tokens(batches: Sequence[Batch]) -> list[list[list[int]]]:
    return [[list(request.token_ids) for request in batch] for batch in batches]


def _spread(ratios: list[float]) -> dict[str, Any]:
    middle = statistics.median(ratios)
    return {"median": middle, "min": min(ratios), "max": max(ratios), "ratios": ratios}


def _listed(versions: dict[str, str | None]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", type=Path, help="interpreter with optimum-benchmark")
    parser.add_argument("--rounds", type=int, help="rounds a case, instead of each case's own")
    parser.add_argument("--min-seconds", type=float, default=5.0, help="shortest window")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--output", type=Path, default=machine.RESULTS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, save and print; 1 when a claim does not hold."""
    asked = _arguments(arguments)
    peer = None if asked.peer_python is None else asked.peer_python.absolute()
    sides = {"llem and bare": Path(sys.executable)} | ({"peer": peer} if peer else {})
    results: dict[str, Any] = {
        "machine": machine.describe(),
        "versions": {side: machine.versions(python, PACKAGES) for side, python in sides.items()},
        "min_seconds": asked.min_seconds,
        "cases": [
            measure(case, asked.rounds or case.rounds, peer, asked.min_seconds)
            for case in CASES
            if asked.only in case.name
        ],
    }
    machine.save(asked.output / "fidelity.json", results)
    (asked.output / "fidelity.md").write_text(report(results), encoding="utf-8")
    print(report(results))
    print("\n".join(found := shortfalls(results)) or "every claim holds")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
