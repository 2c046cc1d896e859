"""What to measure: one experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import (
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    field_validator,
    model_validator,
)

from llenergymeasure.config import inheritance, rules, secrets, yaml_file
from llenergymeasure.config.backend_configs import (
    PyTorchConfig,
    ScriptedConfig,
    TensorRTConfig,
    VLLMConfig,
)
from llenergymeasure.config.base import ConfigModel, FieldProblem, build_section, invalid, refuse
from llenergymeasure.config.canonical import canonical
from llenergymeasure.config.hashing import canonical_hash
from llenergymeasure.config.registry import backend_entry, load_object, plugin_backends
from llenergymeasure.config.sections import (
    BaselineConfig,
    Count,
    DecoderConfig,
    EnergyBackendName,
    LoRAConfig,
    SyntheticDataset,
    WarmupConfig,
    WindowConfig,
)
from llenergymeasure.config.ssot import Precision
from llenergymeasure.exceptions import ConfigError

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
        gives the same hash. So is whatever :func:`canonical` knows to change nothing: two
        configurations that run the same computation have the same fingerprint.
        """
        return canonical_hash(
            canonical(self.model_dump(mode="json", exclude_defaults=True), self.n)
        )

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read one experiment from a YAML file.

        Relative paths in the file are taken from the folder it lies in.

        Raises:
            ConfigError: The file cannot be read or does not describe an experiment; the message
                names file, line and field.
        """
        file = inheritance.read(Path(path), cls)
        inheritance.refuse_study(file)
        return yaml_file.build(cls, file)


def refuse_credentials(title: str, data: dict[str, Any]) -> None:
    """Refuse raw input that holds what looks like a credential, without echoing it.

    Raises:
        ValidationError: Some value does; every field is named.
    """
    refuse(title, (FieldProblem(path, secrets.ADVICE) for path in secrets.secret_paths(data)))
