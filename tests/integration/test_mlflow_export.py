"""Runs in a real store of MLflow, read back through its own client."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llenergymeasure.exceptions import LLEMError
from llenergymeasure.report.mlflow_export import EXPERIMENT, export
from tests.support.make_study import make_run, make_study

pytest.importorskip("mlflow")


def test_each_configuration_is_a_run_below_that_of_its_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)  # where MLflow puts artefacts of a store in a file
    study = make_study(lambda config, number, cycle: make_run(config, 800 / number + cycle / 3))
    store = f"sqlite:///{tmp_path}/runs.db"

    parent, *runs = export(study, store)

    client = MlflowClient(tracking_uri=store)
    assert client.get_experiment_by_name(EXPERIMENT) is not None
    top = client.get_run(parent)
    assert top.data.tags["study_design_hash"] == study.study_design_hash
    for run, one in zip(runs, study.configurations, strict=True):
        read = client.get_run(run)
        assert read.info.status == "FINISHED"
        assert read.data.tags["mlflow.parentRunId"] == parent
        assert read.data.tags["measurement_config_hash"] == one.fingerprint
        for name, figure in one.figures.items():
            low, high = figure.interval95 or (None, None)
            ends = ("", "_low", "_high", "_n")
            found = [read.data.metrics.get(f"{name}{end}") for end in ends]
            assert found == [figure.mean, low, high, figure.n], name
        assert read.data.params == {"pytorch.batch_size": str(one.settings["pytorch.batch_size"])}
        path = client.download_artifacts(run, "config.json", str(tmp_path))
        assert json.loads(Path(path).read_text())["model"] == "m"
    path = client.download_artifacts(parent, "study_summary.json", str(tmp_path))
    assert Path(path).read_text() == study.model_dump_json(exclude={"experiments"}, indent=2)


def test_a_store_that_cannot_be_written_is_named_with_the_remedy_at_once() -> None:
    study = make_study(lambda config, number, cycle: make_run(config))
    with pytest.raises(LLEMError, match=r"/proc/no.db does not take .* MLFLOW_TRACKING_URI"):
        export(study, "sqlite:////proc/no.db")
