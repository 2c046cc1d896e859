"""Isolated experiments with optimum-benchmark; runs in the peer's own environment.

Prints one line of JSON. What the peer says it spent loading and generating counts as work; so does
its warm-up, taken as the mean time of a run. Launcher and options are its defaults.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from typing import Any

import fidelity_peer


def launch(case: dict[str, Any], model: str, batch_size: int) -> float:
    """Run one experiment in a process of its own; give the seconds of its work."""
    from optimum_benchmark import (  # type: ignore[import-not-found] # the peer's environment
        Benchmark,
        BenchmarkConfig,
        InferenceConfig,
        ProcessConfig,
        PyTorchConfig,
    )

    backend = PyTorchConfig(
        model=model,
        library="transformers",
        task="text-generation",
        model_type="llama",
        device="cpu",
        torch_dtype="float32",
    )
    scenario = InferenceConfig(
        input_shapes={"batch_size": batch_size, "sequence_length": case["input_len"]},
        generate_kwargs={
            "max_new_tokens": case["output_len"],
            "min_new_tokens": case["output_len"],
        },
        warmup_runs=1,
        duration=0,
        iterations=1,
    )
    report = Benchmark.launch(
        BenchmarkConfig(
            name="overhead", launcher=ProcessConfig(), scenario=scenario, backend=backend
        )
    )
    seconds = report.load_model.latency.total + report.generate.latency.mean
    for part in ("first_generate", "prefill", "decode", "generate"):
        tracked = getattr(report, part, None)
        seconds += tracked.latency.total if tracked is not None else 0.0
    return float(seconds)


def main(case_json: str, model: str) -> None:
    """Run every experiment and print the fixed cost of one."""
    logging.disable(logging.WARNING)
    case = json.loads(case_json)
    import optimum_benchmark  # noqa: F401 - importing it is no cost of an experiment

    with tempfile.TemporaryDirectory(prefix="peer-") as weights:
        fidelity_peer.save({"seed": 0, "model": model, "dtype": "float32"}, weights)
        start_s = time.perf_counter()
        work_s = [launch(case, weights, batch_size) for batch_size in case["batch_sizes"]]
        wall_s = time.perf_counter() - start_s
    count = len(work_s)
    print(
        json.dumps(
            {
                "experiments": count,
                "wall_s": wall_s,
                "work_s": work_s,
                "fixed_s": (wall_s - sum(work_s)) / count,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
