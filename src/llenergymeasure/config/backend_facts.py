"""What a backend says about itself: everything that the rest of the package knows of it by name.

A backend of this package and one of another package say it in the same way: an object of
:class:`BackendFacts` in a module that imports no engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llenergymeasure.config.base import FieldProblem
from llenergymeasure.config.experiment_fields import ExperimentFields
from llenergymeasure.config.names import DecodingStrategy, Precision
from llenergymeasure.config.plugins import PluginEntry

SAMPLING = frozenset({"decoder.temperature", "decoder.top_p", "decoder.top_k"})
ANSWERS = frozenset({"decoder.repetition_penalty", "decoder.min_new_tokens", "decoder.ignore_eos"})
SPECULATION = frozenset({"decoder.speculative_decoding", "decoder.draft_model"})
LEFT_TO_ENGINES = (
    "revision",
    "trust_remote_code",
    "apply_chat_template",
    "system_prompt",
    "lora",
    "passthrough_kwargs",
)
"""Settings outside ``decoder`` that only the engine itself can carry out."""


@dataclass(frozen=True, slots=True)
class BackendFacts(PluginEntry):
    """One inference backend.

    Attributes:
        section: ``"module:Class"`` of the model behind its section of the configuration.
        batch_field: The field of that section which ``--batch-size`` sets.
        precisions: Names of ``precision`` it can run.
        decoding: Decoding strategies it can run.
        honours: Settings that it carries out, of those that are left to engines: the fields of
            ``decoder`` as ``decoder.top_p``, and :data:`LEFT_TO_ENGINES`. What is not named here is
            refused, but ``decoding_strategy`` and ``num_beams``, which ``decoding`` decides.
        quantisation: Which ``precision`` each method of the section's ``quantization`` can mean;
            a method that is not named is refused. Empty where there is no such field.
        neutral: Values of the section that ask for what happens without them.
        spelled: Gives one spelling to sections that run the same computation, from the fields that
            are given and the number of prompts.
        contradictions: Lists what in a configuration contradicts its section.
        default_batch: Requests served at once where the batch field is null.
        pass_tokens: Most tokens of one pass through the model, or ``None`` without a limit.
        runs_transformers: Whether it runs the modules of transformers one by one, so that their
            code tells what is in memory at once.
        resident_mb: What its process has of RAM without a model, interpreter and libraries, MiB.
        first_use_mb: What comes to that once it computes on a CPU, MiB, by precision.
        shard_fields: Fields of the section whose product is the number of devices a copy of the
            model is spread over.
        differs: What it does in its own way, by the key of a row of ``study.equal_terms``; a name
            in braces is a setting in force.
        plain_fields: Fields of the section whose values say by themselves what they are of.
        less_padding: Field and value that make it pad less.
        preload: Modules of the engine that a fork server imports once for all experiments. None may
            start a thread or touch a GPU when it is imported; if one does, workers are spawned.
        runs_a_model: Whether ``model`` is loaded at all.
        needs_torch_for_gpus: Whether it computes on a GPU only where the torch of its interpreter
            can.
        has_dockerfile: Whether ``docker/`` has a recipe for an image of it.
    """

    section: str = ""
    batch_field: str = "batch_size"
    precisions: tuple[Precision, ...] = ()
    decoding: tuple[DecodingStrategy, ...] = ()
    honours: frozenset[str] = frozenset()
    quantisation: Mapping[str, tuple[Precision, ...]] = field(default_factory=dict)
    neutral: Mapping[str, Any] = field(default_factory=dict)
    spelled: Callable[[dict[str, Any], int], dict[str, Any]] = lambda section, _: section
    contradictions: Callable[[ExperimentFields], Iterable[FieldProblem]] = lambda _: ()
    default_batch: int = 1
    pass_tokens: int | None = None
    runs_transformers: bool = False
    resident_mb: float = 0.0
    first_use_mb: Mapping[str, float] = field(default_factory=dict)
    shard_fields: tuple[str, ...] = ()
    differs: Mapping[str, str] = field(default_factory=dict)
    plain_fields: tuple[str, ...] = ()
    less_padding: tuple[str, str] | None = None
    preload: tuple[str, ...] = ()
    runs_a_model: bool = True
    needs_torch_for_gpus: bool = False
    has_dockerfile: bool = False

    def shards(self, section: Any) -> int:
        """Count the devices that a copy of the model is spread over."""
        return math.prod(getattr(section, name, None) or 1 for name in self.shard_fields)
