"""The settings of one experiment, without what makes them consistent (see ``experiment``)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue
from pydantic_core import PydanticCustomError

from llenergymeasure.config.backend_configs import (
    MOST,
    Count,
    PyTorchConfig,
    ScriptedConfig,
    TensorRTConfig,
    VLLMConfig,
)
from llenergymeasure.config.base import ConfigModel
from llenergymeasure.config.energy_sources import EnergyBackendName
from llenergymeasure.config.names import (
    PROMPT_FILES,
    RANDOM_PREFIX,
    DecodingStrategy,
    Precision,
    prompt_file_ending,
)

DEFAULT_BACKEND = "pytorch"
MOST_PROMPTS = 100
"""Prompts that are used at most where nobody says how many."""

Seconds = Annotated[float, Field(ge=0, le=MOST)]


class DecoderConfig(ConfigModel):
    """How tokens are chosen. A null sampling parameter is neutral in every engine."""

    decoding_strategy: DecodingStrategy = Field("greedy", description="greedy, sampling or beam.")
    temperature: float | None = Field(
        None, gt=0, description="Softmax temperature; only for sampling (null: 1)."
    )
    top_p: float | None = Field(
        None, gt=0, le=1, description="Nucleus mass; only for sampling (null: 1)."
    )
    top_k: Count | None = Field(
        None, description="Most probable tokens kept; only for sampling (null: all)."
    )
    repetition_penalty: float | None = Field(
        None, gt=0, description="Penalty on tokens seen before (null: 1)."
    )
    num_beams: int | None = Field(
        None, ge=2, le=MOST, description="Beams; required for beam, only for it."
    )
    min_new_tokens: Count | None = Field(
        None, description="No end of sequence before this many tokens."
    )
    ignore_eos: bool = Field(
        False, description="Generate max_new_tokens whatever the model says; random: implies it."
    )
    speculative_decoding: bool = Field(
        False, description="Let draft_model propose tokens that the model verifies."
    )
    draft_model: str | None = Field(
        None,
        description="Model that drafts, with the same vocabulary; only for speculative_decoding.",
        json_schema_extra={"is_path": ""},
    )


NEUTRAL_DECODER: Mapping[str, float] = {"temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0}
"""What ``null`` means in every engine, for fields that have such a value."""


class WarmupConfig(ConfigModel):
    """Work done before the measured window, so that the window sees a steady device."""

    n_warmup: Annotated[int, Field(ge=0, le=MOST)] = Field(
        3, description="Full-length batches of the measured shapes, with other prompts."
    )
    thermal_floor_seconds: Seconds = Field(
        60.0,
        description="Warm-up goes on under load until this much has passed; skipped, and recorded "
        "as skipped, where neither energy nor temperature is measured.",
    )


class BaselineConfig(ConfigModel):
    """Power of the idle device, before the model loads and with the model resident."""

    enabled: bool = Field(
        True, description="Measure it; skipped, and recorded as skipped, without a measured source."
    )
    duration_seconds: Annotated[float, Field(gt=0, le=MOST)] = Field(
        30.0, description="How long each idle measurement takes."
    )


class WindowConfig(ConfigModel):
    """The stretch of time that energy, tokens and latency are all taken over."""

    min_duration_seconds: Seconds = Field(
        0.0, description="Repeat passes over the prompts until the window is this long."
    )
    phases: Literal["amortised", "differential"] = Field(
        "amortised",
        description="amortised: energy spread over output tokens. differential: a second, "
        "prefill-only window (one new token a prompt) is subtracted to tell prefill from decode.",
    )


class SyntheticSpec(ConfigModel):
    """Prompts of exact length, drawn from the model's own vocabulary."""

    n: Count | None = Field(
        None, description="Prompts in the dataset (null: the n of the experiment)."
    )
    input_len: Count = Field(128, description="Tokens of every prompt.")
    output_len: Count = Field(128, description="Tokens of every answer; enforced.")
    seed: int = Field(0, ge=0, description="Seed of the draw.")


class SyntheticDataset(ConfigModel):
    """``dataset: {synthetic: {...}}``."""

    synthetic: SyntheticSpec = Field(description="Shape of the prompts.")


class DatasetFile(ConfigModel):
    """``dataset: {path: ..., column: ...}``: a file whose columns are named."""

    path: Annotated[str, AfterValidator(_not_empty)] = Field(
        description="File of prompts: .jsonl, .json, .csv (each also with .gz behind it) or "
        ".parquet.",
        json_schema_extra={"is_path": "", "minLength": 1},
    )
    column: str | None = Field(
        None,
        description="Column, or key, that holds the prompts, as text or as chats (null: prompt, "
        "text, text_input, question, messages or conversations).",
    )
    limit_column: str | None = Field(
        None,
        description="Column, or key, with a max_new_tokens for each prompt (null: max_new_tokens, "
        "max_tokens, output_len or max_output_tokens).",
    )


def _as_section(dataset: dict[str, Any]) -> SyntheticDataset | DatasetFile:
    """Build the section that a mapping is meant to be, so that what is said is about that one."""
    synthetic = difflib.get_close_matches("synthetic", map(str, dataset), n=1)
    return (SyntheticDataset if synthetic else DatasetFile).model_validate(dataset)


class LoRAConfig(ConfigModel):
    """A LoRA adapter on top of the model; exactly one of adapter_id and adapter_path."""

    adapter_id: str | None = Field(None, description="Hub id of the adapter.")
    adapter_path: str | None = Field(
        None, description="Local directory of the adapter.", json_schema_extra={"is_path": ""}
    )
    merge_weights: bool = Field(False, description="Fold the adapter into the weights at load.")


def _not_empty(text: str) -> str:
    # Not min_length, for which pydantic wants Unicode: a path may be in any encoding.
    if not text:
        raise PydanticCustomError("string_too_short", "must not be empty")
    return text


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of a flag in another encoding; no tokenizer takes it
        raise PydanticCustomError("string_unicode", "must be valid Unicode") from None
    return _not_empty(text)


class ExperimentFields(ConfigModel):
    """What an experiment says; rules of one field are checked, rules of several are not."""

    model: Annotated[str, AfterValidator(_not_empty)] = Field(
        description="Hub id, local directory, or random:<architecture> for random weights.",
        json_schema_extra={"is_path": "", "minLength": 1},
    )
    revision: str | None = Field(None, description="Branch, tag or commit on the Hub.")
    trust_remote_code: bool = Field(False, description="Run code that comes with the model.")
    apply_chat_template: bool = Field(
        False,
        description="Wrap each prompt as a user message in the model's chat template; chats of a "
        "dataset always are.",
    )
    system_prompt: Annotated[str, AfterValidator(_unicode)] | None = Field(
        None,
        description="System message before each prompt; for prompts under the chat template that "
        "have none of their own.",
    )
    backend: str = Field(DEFAULT_BACKEND, description="Inference backend.")
    precision: Precision = Field("bf16", description="Arithmetic of the weights.")
    dataset: Annotated[
        str | SyntheticDataset | DatasetFile,
        BeforeValidator(lambda one: _as_section(one) if isinstance(one, dict) else one),
    ] = Field(
        "mixed-1k",
        description="mixed-1k, aienergyscore, a file of prompts (.jsonl, .json, .csv, .parquet), "
        "{path: ..., column: ...}, or {synthetic: {...}}.",
        json_schema_extra={"is_path": list(PROMPT_FILES)},
    )
    n: Count | None = Field(
        None,
        description=f"Prompts used, from the start of the dataset (null: all, {MOST_PROMPTS} at "
        "most).",
    )
    max_input_tokens: Count | None = Field(
        512, description="Longer prompts are truncated and counted (null: never)."
    )
    max_new_tokens: Count = Field(
        128, description="Output tokens, for prompts without a value of their own."
    )
    random_seed: int = Field(
        42, ge=0, lt=2**32, description="Seed of weights, sampling and warm-up prompts."
    )
    decoder: DecoderConfig = Field(
        default_factory=DecoderConfig, description="How tokens are chosen."
    )
    warmup: WarmupConfig = Field(
        default_factory=WarmupConfig, description="Work before the window."
    )
    baseline: BaselineConfig = Field(
        default_factory=BaselineConfig, description="Power of the idle device."
    )
    window: WindowConfig = Field(default_factory=WindowConfig, description="The measured window.")
    energy_backend: EnergyBackendName = Field(
        "auto", description="Energy source; auto lets the user configuration decide, then picks."
    )
    pytorch: PyTorchConfig | None = Field(None, description="Settings of the pytorch backend.")
    vllm: VLLMConfig | None = Field(None, description="Settings of the vllm backend.")
    tensorrt: TensorRTConfig | None = Field(None, description="Settings of the tensorrt backend.")
    scripted: ScriptedConfig | None = Field(None, description="Settings of the scripted backend.")
    lora: LoRAConfig | None = Field(None, description="A LoRA adapter.")
    passthrough_kwargs: dict[str, JsonValue] | None = Field(
        None, description="Handed to the engine's constructor as is; the one escape hatch."
    )

    @property
    def ignores_eos(self) -> bool:
        """Whether every request runs to its ``max_new_tokens`` whatever the model says."""
        synthetic = isinstance(self.dataset, SyntheticDataset)
        return self.decoder.ignore_eos or self.model.startswith(RANDOM_PREFIX) or synthetic

    @property
    def has_prompt_file(self) -> bool:
        """Whether the prompts are the user's own, which may be chats, each with its own limit."""
        if isinstance(self.dataset, str):
            return prompt_file_ending(self.dataset) is not None
        return isinstance(self.dataset, DatasetFile)
