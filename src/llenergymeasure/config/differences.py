"""What engines do each in their own way and cannot be made equal: of what, and what follows.

Each backend says what it does itself (``BackendFacts.differs``); a study over several engines tells
what applies to it. Their pages in ``docs/engines`` say more.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Condition = Literal[
    "always",
    "not fp32",
    "int8",
    "int4",
    "fp8",
    "random weights",
    "warm-up",
    "sampling",
    "beam search",
    "speculation",
    "on a CPU",
]


class Difference(NamedTuple):
    """One thing that engines do each in their own way.

    Attributes:
        about: What, with the figures that it bears on, in a few words.
        so: What follows for a comparison, a sentence.
        when: Of which results it holds.
    """

    about: str
    so: str
    when: Condition = "always"


_OTHER_ARITHMETIC = "One name, other arithmetic."

DIFFERENCES = {
    "scheduling": Difference("scheduling (TTFT)", "TTFT does not compare as it stands."),
    "kv_cache": Difference("KV cache (peak memory)", "Peak memory does not compare as it stands."),
    "clocks": Difference(
        "clocks (TTFT, TPOT, ITL)", "Small differences of times may be those of the clocks."
    ),
    "kernels": Difference(
        "kernels (rounding)", "Greedy answers may part after some tokens.", "not fp32"
    ),
    "int8": Difference("int8", _OTHER_ARITHMETIC, "int8"),
    "int4": Difference("int4", _OTHER_ARITHMETIC, "int4"),
    "fp8": Difference("fp8", _OTHER_ARITHMETIC, "fp8"),
    "random_weights": Difference(
        "random weights (energy)",
        "Power depends on the values, so a difference of energy may be theirs.",
        "random weights",
    ),
    "sampling": Difference("sampled tokens", "One seed, other tokens.", "sampling"),
    "beam_search": Difference(
        "beam search",
        "TTFT, TPOT and ITL do not compare, and answers may be of other lengths.",
        "beam search",
    ),
    "speculation": Difference(
        "speculative decoding",
        "What is accepted differs, and the work with it.",
        "speculation",
    ),
    "warm_up": Difference(
        "warm-up",
        "The same warmup.n_warmup is more work where a batch is a pass.",
        "warm-up",
    ),
    "threads": Difference(
        "CPU threads", "Set pytorch.num_threads to compare equal numbers.", "on a CPU"
    ),
}
"""By the key under which a backend says what it does."""
