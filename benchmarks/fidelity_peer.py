"""optimum-benchmark on the same model and shapes; runs in the peer's own environment.

``python fidelity_peer.py save CASE.json DIRECTORY`` writes the random weights that it and the bare
loop load; ``python fidelity_peer.py run CASE.json`` prints one line of JSON. Launcher and options
are the peer's defaults, but for shapes and durations.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import torch
import transformers


def save(case: dict[str, Any], directory: str) -> None:
    """Write random weights from the seed, in this environment's format."""
    torch.manual_seed(case["seed"])
    shape = transformers.AutoConfig.from_pretrained(case["model"])
    model = transformers.AutoModelForCausalLM.from_config(
        shape, dtype=getattr(torch, case["dtype"])
    )
    model.generation_config = transformers.GenerationConfig()
    model.save_pretrained(directory)


def run(case: dict[str, Any]) -> dict[str, Any]:
    """Measure; what is reported is the peer's own figure of decoding."""
    from optimum_benchmark import (  # type: ignore[import-not-found] # the peer's environment
        Benchmark,
        BenchmarkConfig,
        InferenceConfig,
        ProcessConfig,
        PyTorchConfig,
    )

    rows = case["batches"][0]
    backend = PyTorchConfig(
        model=case["model"],
        library="transformers",
        task="text-generation",
        model_type="llama",
        device="cpu",
        torch_dtype=case["dtype"],
        seed=case["seed"],
    )
    scenario = InferenceConfig(
        input_shapes={"batch_size": len(rows), "sequence_length": len(rows[0])},
        generate_kwargs={
            "max_new_tokens": case["new_tokens"],
            "min_new_tokens": case["new_tokens"],
        },
        warmup_runs=len(case["warmup"]),
        duration=round(case["min_seconds"]),
        iterations=1,
    )
    config = BenchmarkConfig(
        name="fidelity", launcher=ProcessConfig(), scenario=scenario, backend=backend
    )
    report = Benchmark.launch(config)
    generate_s = report.generate.latency.mean
    return {
        "iterations": report.generate.latency.count,
        "prefill_s": report.prefill.latency.mean,
        "decode_tokens_per_second": report.decode.throughput.value,
        "tokens_per_second": len(rows) * case["new_tokens"] / generate_s,
    }


def main(verb: str, path: str, *rest: str) -> None:
    """Save or run."""
    case = json.loads(Path(path).read_text(encoding="utf-8"))
    logging.disable(logging.WARNING)
    if verb == "save":
        save(case, *rest)
    else:
        print(json.dumps(run(case)))


if __name__ == "__main__":
    main(*sys.argv[1:])
