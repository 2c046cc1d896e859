"""Train the small byte-level BPE tokenizer of the package on the prompts of `mixed-1k`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

REPOSITORY = Path(__file__).resolve().parents[1]
DATASET = REPOSITORY / "src/llenergymeasure/datasets/builtin/mixed-1k.jsonl"
OUTPUT = REPOSITORY / "src/llenergymeasure/core/models/tokenizer"
VOCABULARY_SIZE = 1000
BEGIN, END, PADDING = "<s>", "</s>", "<pad>"
CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": BEGIN,
    "eos_token": END,
    "pad_token": PADDING,
    "clean_up_tokenization_spaces": False,
    "model_max_length": 1_000_000,
}


def read_prompts(dataset: Path) -> list[str]:
    """Return the prompts of a dataset file, without its header."""
    rows = [json.loads(line) for line in dataset.read_text(encoding="utf-8").splitlines()]
    return [row["prompt"] for row in rows if "prompt" in row]


def train(prompts: Sequence[str]) -> Tokenizer:
    """Return a tokenizer trained on `prompts`; it encodes any text without loss."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[BEGIN, END, PADDING],
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(prompts, trainer)
    return tokenizer


def tokenizer_text(dataset: Path = DATASET) -> str:
    """Return the content of `tokenizer.json` for the prompts of `dataset`."""
    return train(read_prompts(dataset)).to_str(pretty=True) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the tokenizer files to the folder given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    output: Path = parser.parse_args(arguments).output
    output.mkdir(parents=True, exist_ok=True)
    (output / "tokenizer.json").write_text(tokenizer_text(), encoding="utf-8")
    config = json.dumps(CONFIG, indent=2) + "\n"
    (output / "tokenizer_config.json").write_text(config, encoding="utf-8")


if __name__ == "__main__":
    main()
