"""What to measure: a collection of experiments, as its author wrote it down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    JsonValue,
    PlainValidator,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from llenergymeasure.config.backend_configs import MOST
from llenergymeasure.config.base import MOST_PROBLEMS, ConfigModel, invalid, refuse_at
from llenergymeasure.config.experiment import ExperimentConfig, meant_inside
from llenergymeasure.config.experiment_fields import Seconds
from llenergymeasure.config.plugins import load_object
from llenergymeasure.config.study_rules import Design, design_problems, sweep_problems

CycleOrder = Literal["balanced", "interleaved", "shuffled", "sequential"]
StartMethod = Literal["auto", "spawn", "forkserver"]


class ExecutionConfig(ConfigModel):
    """How the experiments of a study are run; no part of what is measured."""

    n_cycles: Annotated[int, Field(ge=1, le=100_000)] = Field(
        3, description="How often every configuration is measured, each time in a fresh process."
    )
    cycle_order: CycleOrder = Field(
        "balanced",
        description="balanced: every configuration follows every other as equally often as can "
        "be. interleaved: A B, A B. shuffled: a new order each cycle. sequential: A A, B B.",
    )
    config_gap_seconds: Seconds | None = Field(
        None, description="Pause between experiments (null: the user configuration decides)."
    )
    cycle_gap_seconds: Seconds | None = Field(
        None,
        description="Pause between cycles, in orders that have cycles (null: the user "
        "configuration decides).",
    )
    timeout_s: Annotated[float, Field(gt=0, le=MOST)] | None = Field(
        None,
        description="An experiment that takes longer is ended and has failed (null: several times "
        "what the plan expects).",
    )
    start_method: StartMethod | None = Field(
        None,
        description="How an experiment's process is started (null: the user configuration "
        "decides).",
    )
    seed: int = Field(42, ge=0, lt=2**32, description="Seed of the order.")


def _entry(value: Any) -> ExperimentConfig | dict[str, Any]:
    if isinstance(value, ExperimentConfig | dict):
        return value
    raise invalid("must be a section, with fields of its own")


Entry = Annotated[
    ExperimentConfig | dict[str, Any], PlainValidator(_entry), WithJsonSchema({"type": "object"})
]


class StudyConfig(ConfigModel):
    """A collection of experiments: defaults, a grid over them, and explicit entries.

    Every field of :class:`ExperimentConfig` may stand beside the fields below and is a default
    for all experiments. ``backend`` may be a list; each backend then has a grid of its own.
    What the design comes to is worked out by :func:`llenergymeasure.study.grid.expand`.
    """

    # The defaults arrive as extra fields; `accepts` admits no others.
    model_config = ConfigDict(extra="allow")
    is_whole = True

    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=100,
        description="Name of the study, also the beginning of its directory's name.",
    )
    sweep: dict[str, tuple[JsonValue, ...]] = Field(
        {},
        description="Dotted field to the list of its values; every combination is an experiment. "
        "A field of a backend's section is a dimension of that backend's grid only.",
    )
    experiments: tuple[Entry, ...] = Field(
        (),
        strict=False,
        description="Explicit experiments beside the grid; each is laid over the defaults.",
    )
    execution: ExecutionConfig = Field(
        default_factory=ExecutionConfig, description="How the experiments are run."
    )
    cold_start: bool = Field(
        False,
        description="No warm-up; loading the model becomes a measured window of its own.",
    )

    @classmethod
    def accepts(cls, name: str) -> bool:
        """Admit the fields of a study and, as defaults, those of an experiment."""
        return name in cls.model_fields or ExperimentConfig.accepts(name)

    @classmethod
    def names(cls) -> Iterable[str]:
        """List the fields of a study and of an experiment."""
        return (*cls.model_fields, "base", *ExperimentConfig.model_fields)

    @classmethod
    def hint(cls, name: str, data: Mapping[str, Any]) -> str:
        """Name the field of ``execution``, or of a section, that was meant; else the nearest."""
        if name in ExecutionConfig.model_fields:
            return f"did you mean 'execution.{name}'?"
        return meant_inside(name, data.get("backend")) or super().hint(name, data)

    @classmethod
    def prepare(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Refuse a sweep that is not made of lists."""
        if isinstance(sweep := data.get("sweep"), Mapping):
            refuse_at(cls.__name__, sweep_problems(sweep))
            lists = {str(key): tuple(values) for key, values in sweep.items()}
            data = {**data, "sweep": lists}
        return data

    @field_validator("name", mode="before")
    @classmethod
    def _names_no_path(cls, name: Any) -> Any:
        if isinstance(name, str) and ("/" in name or "\\" in name):
            raise invalid(
                "is also the name of a directory, so it must not hold '/' or '\\'; use letters, "
                "digits, '.', '_' and '-', and --output to choose where results go"
            )
        return name

    @model_validator(mode="after")
    def _is_a_design(self) -> Self:
        refuse_at(type(self).__name__, islice(design_problems(self.design), MOST_PROBLEMS))
        return self

    @property
    def design(self) -> Design:
        """What is described, apart from how it is run."""
        return Design(self.model_extra or {}, self.sweep, self.experiments, self.cold_start)

    @property
    def defaults(self) -> dict[str, Any]:
        """The experiment fields that stand at the top, as they were given, without ``backend``."""
        return self.design.defaults

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends of the grid: those named, else those whose settings are swept."""
        return self.design.backends

    @property
    def all_backends(self) -> tuple[str, ...]:
        """The backends of the grid and of the explicit entries."""
        return self.design.all_backends

    @property
    def single(self) -> ExperimentConfig | None:
        """The one experiment, where it is run once, in the process that asks for it.

        A time limit, or a way to start a process, asks for a process; that is any other study.
        """
        (entry, *others), execution = (*self.experiments, None), self.execution
        in_process = execution.timeout_s is None and execution.start_method is None
        once = in_process and execution.n_cycles == 1 and not self.sweep
        alone = once and others == [None]
        return entry if alone and isinstance(entry, ExperimentConfig) else None

    @classmethod
    def of(
        cls, experiment: ExperimentConfig, execution: ExecutionConfig | None = None
    ) -> StudyConfig:
        """Make a study of one experiment; it runs once unless ``execution`` says otherwise.

        Both are valid by themselves, and together there is nothing that they could break.
        """
        execution = execution or ExecutionConfig(n_cycles=1)
        return cls.model_construct(experiments=(experiment,), execution=execution)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a study, or a single experiment as a study of one, from a YAML file.

        Relative paths in the file, and in the files it builds on with ``base:``, are taken from
        the folder of the file that holds them.

        Raises:
            ConfigError: The file cannot be read or does not describe a study; the message names
                file, line and field.
        """
        study: Self = load_object("llenergymeasure.config.loader:load_study_config")(Path(path))
        return study
