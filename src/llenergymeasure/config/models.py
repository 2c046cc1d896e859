"""What to measure: one experiment, or a collection of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    field_validator,
    model_validator,
)

from llenergymeasure.config import rules, yaml_file
from llenergymeasure.config.backend_configs import (
    PyTorchConfig,
    ScriptedConfig,
    TensorRTConfig,
    VLLMConfig,
)
from llenergymeasure.config.base import ConfigModel, FieldProblem, build_section, invalid, refuse
from llenergymeasure.config.hashing import canonical_hash
from llenergymeasure.config.registry import backend_entry, load_object, plugin_backends
from llenergymeasure.config.secrets import secret_paths
from llenergymeasure.config.ssot import DecodingStrategy, Precision
from llenergymeasure.exceptions import ConfigError

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0)]

EnergyBackendName = Literal["auto", "nvml", "zeus", "rapl", "codecarbon", "none"]


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
    num_beams: int | None = Field(None, ge=2, description="Beams; required for beam, only for it.")
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


class WarmupConfig(ConfigModel):
    """Work done before the measured window, so that the window sees a steady device."""

    n_warmup: Annotated[int, Field(ge=0)] = Field(
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
    duration_seconds: Annotated[float, Field(gt=0)] = Field(
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


class LoRAConfig(ConfigModel):
    """A LoRA adapter on top of the model; exactly one of adapter_id and adapter_path."""

    adapter_id: str | None = Field(None, description="Hub id of the adapter.")
    adapter_path: str | None = Field(
        None, description="Local directory of the adapter.", json_schema_extra={"is_path": ""}
    )
    merge_weights: bool = Field(False, description="Fold the adapter into the weights at load.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.adapter_id is None) == (self.adapter_path is None):
            raise invalid("give exactly one of adapter_id and adapter_path")
        return self


STORED = {"stored": True}
"""Validation context of a configuration that is read back from a result."""


class ExperimentConfig(ConfigModel):
    """One inference experiment: what to measure, never how or on what machine.

    Built from keyword arguments or from YAML with :meth:`from_yaml`. Unknown fields, wrong types
    and settings that the rest makes meaningless are errors.
    """

    # Sections of plugin backends arrive as extra fields; `accepts` admits no others.
    model_config = ConfigDict(extra="allow")

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
    backend: str = Field("pytorch", description="Inference backend.")
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
    decoder: DecoderConfig = Field(DecoderConfig(), description="How tokens are chosen.")
    warmup: WarmupConfig = Field(WarmupConfig(), description="Work before the window.")
    baseline: BaselineConfig = Field(BaselineConfig(), description="Power of the idle device.")
    window: WindowConfig = Field(WindowConfig(), description="The measured window.")
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

    @classmethod
    def accepts(cls, name: str) -> bool:
        """Admit the declared fields and the sections of plugin backends."""
        return name in cls.model_fields or name in plugin_backends()

    @classmethod
    def prepare(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Refuse credentials, fill in what the dataset decides, build the sections of plugins."""
        refuse_credentials(cls.__name__, data)
        extra = [name for name in data if name not in cls.model_fields]
        known = {name: value for name, value in data.items() if name not in extra}
        sections = {
            name: build_section(name, load_object(backend_entry(name).section), data[name])
            for name in extra
            if data[name] is not None
        }
        return {**rules.with_synthetic_defaults(known), **sections}

    @field_validator("backend")
    @classmethod
    def _known_backend(cls, name: str) -> str:
        try:
            backend_entry(name)
        except ConfigError as error:
            raise invalid(error.message) from None
        return name

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Self:
        # What was measured once stays readable, whatever rules a later version adds.
        if not (info.context or {}).get("stored"):
            refuse(type(self).__name__, rules.contradictions(self))
        return self

    @property
    def section(self) -> ConfigModel:
        """The section of the chosen backend, with its defaults where none was given."""
        given = getattr(self, self.backend, None)
        model = load_object(backend_entry(self.backend).section)
        section: ConfigModel = model() if given is None else given
        return section

    @property
    def ignores_eos(self) -> bool:
        """Whether every request runs to its ``max_new_tokens`` whatever the model says."""
        return rules.ignores_eos(self)

    def fingerprint(self) -> str:
        """Hash what is asked for (``measurement_config_hash``).

        Fields at their defaults are left out, so a later version that adds a field with a default
        gives the same hash. So is a section without any setting, which asks for nothing.
        """
        asked = self.model_dump(mode="json", exclude_defaults=True)
        return canonical_hash({name: value for name, value in asked.items() if value != {}})

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read one experiment from a YAML file.

        Relative paths in the file are taken from the folder it lies in.

        Raises:
            ConfigError: The file cannot be read or does not describe an experiment; the message
                names file, line and field.
        """
        return yaml_file.build(cls, yaml_file.anchored(cls, yaml_file.read(Path(path))))


def refuse_credentials(title: str, data: dict[str, Any]) -> None:
    """Refuse raw input that holds what looks like a credential, without echoing it.

    Raises:
        ValidationError: Some value does; every field is named.
    """
    advice = "looks like a credential; keep it in the environment (HF_TOKEN)"
    refuse(title, (FieldProblem(path, advice) for path in secret_paths(data)))


class StudyConfig(ConfigModel):
    """A collection of experiments. This version takes exactly one."""

    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Name of the study, also the beginning of its directory's name.",
    )
    experiments: tuple[ExperimentConfig, ...] = Field(
        min_length=1, strict=False, description="The experiments of the study."
    )

    @classmethod
    def prepare(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Refuse credentials; each experiment does so for itself."""
        own = {name: value for name, value in data.items() if name != "experiments"}
        refuse_credentials(cls.__name__, own)
        return data

    def design_hash(self) -> str:
        """Hash the design (``study_design_hash``): the sorted hashes of the experiments."""
        return canonical_hash(sorted(experiment.fingerprint() for experiment in self.experiments))

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a study, or a single experiment as a study of one, from a YAML file.

        Raises:
            ConfigError: The file cannot be read or does not describe a study; the message names
                file, line and field.
        """
        file = yaml_file.read(Path(path))
        if "experiments" in file.data:
            return yaml_file.build(cls, yaml_file.anchored(cls, file))
        experiment = yaml_file.build(ExperimentConfig, yaml_file.anchored(ExperimentConfig, file))
        return cls(experiments=(experiment,))
