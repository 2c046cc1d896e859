"""A bare ``model.generate`` loop, timed with a stopwatch: the reference of fidelity.py.

It needs torch and transformers only, so that it runs in the peer's environment as well.
``python fidelity_bare.py CASE.json`` prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers


def load(case: dict[str, Any]) -> Any:
    """Load saved weights, or make random ones from the seed."""
    dtype = getattr(torch, case["dtype"])
    auto = transformers.AutoModelForCausalLM
    torch.manual_seed(case["seed"])
    if case["weights"] == "saved":
        return auto.from_pretrained(case["model"], dtype=dtype, attn_implementation="sdpa").eval()
    shape = transformers.AutoConfig.from_pretrained(case["model"])
    return auto.from_config(shape, dtype=dtype, attn_implementation="sdpa").eval()


def generate(model: Any, batch: Any, new_tokens: int) -> int:
    """Answer one batch; give the number of tokens of all its answers."""
    output = model.generate(
        input_ids=batch,
        attention_mask=torch.ones_like(batch),
        generation_config=transformers.GenerationConfig(
            max_new_tokens=new_tokens, do_sample=False, pad_token_id=0, eos_token_id=None
        ),
    )
    rows, length = output.shape
    return int(rows * (length - batch.shape[1]))


def passes(model: Any, case: dict[str, Any], new_tokens: int, floor_s: float) -> dict[str, Any]:
    """Repeat passes over the batches until the time is up, and read the stopwatch."""
    batches = [torch.tensor(rows) for rows in case["batches"]]  # each (batch, prompt)
    tokens = count = 0
    start_s = time.perf_counter()
    while not count or time.perf_counter() - start_s < floor_s:
        for batch in batches:
            tokens += generate(model, batch, new_tokens)
        count += 1
    seconds = time.perf_counter() - start_s
    return {"passes": count, "output_tokens": tokens, "seconds": seconds}


def main(path: str) -> None:
    """Load, warm up, measure, print."""
    case = json.loads(Path(path).read_text(encoding="utf-8"))
    transformers.logging.set_verbosity_error()
    model = load(case)  # outside: weights made in inference mode are slower on a CPU
    model.generation_config = transformers.GenerationConfig()
    with torch.inference_mode():
        for rows in case["warmup"]:
            generate(model, torch.tensor(rows), case["new_tokens"])
        measured = passes(model, case, case["new_tokens"], case["min_seconds"])
        figures = {
            **measured,
            "tokens_per_second": measured["output_tokens"] / measured["seconds"],
            "threads": torch.get_num_threads(),
        }
        if case["decode_apart"]:
            prefill = passes(model, case, 1, case["min_seconds"] / 8)
            figures.update(_decode(measured, prefill, len(case["batches"])))
    print(json.dumps(figures))


def _decode(whole: dict[str, Any], prefill: dict[str, Any], batches: int) -> dict[str, float]:
    """Tell decoding from prefill: a whole answer less an answer of one token."""
    decode_s = whole["seconds"] / whole["passes"] - prefill["seconds"] / prefill["passes"]
    tokens = whole["output_tokens"] / whole["passes"] - prefill["output_tokens"] / prefill["passes"]
    return {
        "prefill_s": prefill["seconds"] / prefill["passes"] / batches,
        "decode_tokens_per_second": tokens / decode_s,
    }


if __name__ == "__main__":
    main(sys.argv[1])
