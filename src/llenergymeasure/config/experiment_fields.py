"""The settings of one experiment, without what makes them consistent (see ``experiment``)."""

from __future__ import annotations

from pydantic import Field, JsonValue

from llenergymeasure.config.backend_configs import (
    PyTorchConfig,
    ScriptedConfig,
    TensorRTConfig,
    VLLMConfig,
)
from llenergymeasure.config.base import ConfigModel
from llenergymeasure.config.energy_sources import EnergyBackendName
from llenergymeasure.config.precisions import Precision
from llenergymeasure.config.sections import (
    BaselineConfig,
    Count,
    DecoderConfig,
    LoRAConfig,
    SyntheticDataset,
    WarmupConfig,
    WindowConfig,
)

DEFAULT_BACKEND = "pytorch"


class ExperimentFields(ConfigModel):
    """What an experiment says; rules of one field are checked, rules of several are not."""

    model: str = Field(
        min_length=1,
        description="Hub id, local directory, or random:<architecture> for random weights.",
        json_schema_extra={"is_path": ""},
    )
    revision: str | None = Field(None, description="Branch, tag or commit on the Hub.")
    trust_remote_code: bool = Field(False, description="Run code that comes with the model.")
    apply_chat_template: bool = Field(
        False, description="Wrap each prompt as a user message in the model's chat template."
    )
    backend: str = Field(DEFAULT_BACKEND, description="Inference backend.")
    precision: Precision = Field("bf16", description="Arithmetic of the weights.")
    dataset: str | SyntheticDataset = Field(
        "mixed-1k",
        description="mixed-1k, aienergyscore, a .jsonl file, or {synthetic: {...}}.",
        json_schema_extra={"is_path": ".jsonl"},
    )
    n: Count = Field(100, description="Prompts used, from the start of the dataset.")
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
