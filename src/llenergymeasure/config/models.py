"""What to measure: one experiment, or a collection of them; every model under one roof."""

from llenergymeasure.config.experiment import STORED, ExperimentConfig
from llenergymeasure.config.experiment_fields import (
    BaselineConfig,
    DatasetFile,
    DecoderConfig,
    LoRAConfig,
    SyntheticDataset,
    SyntheticSpec,
    WarmupConfig,
    WindowConfig,
)
from llenergymeasure.config.study import CycleOrder, ExecutionConfig, StudyConfig

__all__ = [
    "STORED",
    "BaselineConfig",
    "CycleOrder",
    "DatasetFile",
    "DecoderConfig",
    "ExecutionConfig",
    "ExperimentConfig",
    "LoRAConfig",
    "StudyConfig",
    "SyntheticDataset",
    "SyntheticSpec",
    "WarmupConfig",
    "WindowConfig",
]
