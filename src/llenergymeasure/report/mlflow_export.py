"""Results as runs in MLflow: one a configuration, below one run for each study.

Where to is MLflow's own affair: ``MLFLOW_TRACKING_URI`` names the store and
``MLFLOW_EXPERIMENT_NAME`` the experiment; see https://mlflow.org/docs/latest/ml/tracking/.
"""

from __future__ import annotations

import importlib.util
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from llenergymeasure.domain.results import ExperimentResult, StudyResult
from llenergymeasure.exceptions import LLEMError
from llenergymeasure.report.exports import ExportRow, numbers, rows

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXPERIMENT = "llenergymeasure"
"""Where runs go unless ``MLFLOW_EXPERIMENT_NAME`` names another experiment."""

_PARENT, _NAME = "mlflow.parentRunId", "mlflow.runName"  # MLflow's reserved tags
_SQLITE = "sqlite:///"
_REMEDY = "set MLFLOW_TRACKING_URI to a store that can be written"


def export(result: StudyResult | ExperimentResult, store: str | None = None) -> tuple[str, ...]:
    """Write a result to MLflow; what it writes twice is there twice.

    Each run has settings as parameters; each figure as a metric with ``_low`` and ``_high``, the
    ends of its 95 % interval, and ``_n``; hashes, versions and cautions as tags; and the stored
    summary and configuration as artefacts.

    Args:
        result: What to write.
        store: Tracking URI; by default what MLflow takes.

    Returns:
        The ids of the runs, that of the study first.

    Raises:
        LLEMError: MLflow is not installed, or its store does not take the runs.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise LLEMError(
            "the export needs MLflow, which is not installed: pip install 'llenergymeasure[mlflow]'"
        )
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing of a result goes elsewhere
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    uri = store or mlflow.get_tracking_uri()
    try:
        _check(uri)
        client = MlflowClient(tracking_uri=uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else client.create_experiment(name)
        return tuple(_runs(client, experiment, result))
    except (MlflowException, OSError, sqlite3.Error) as error:
        said = f"MLflow's store {uri} does not take the runs: {error}; {_REMEDY}"
        raise LLEMError(said, where=uri) from None


def _check(uri: str) -> None:
    """Try to write to a store in a file; MLflow would try for most of an hour."""
    if uri.startswith(_SQLITE):
        with closing(sqlite3.connect(uri.removeprefix(_SQLITE))) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE llenergymeasure_can_write (x)")
            connection.rollback()


def _runs(
    client: MlflowClient, experiment: str, result: StudyResult | ExperimentResult
) -> Iterator[str]:
    above: dict[str, str] = {}
    if isinstance(result, StudyResult):
        tags = {
            _NAME: result.name or "study",
            "study_design_hash": result.study_design_hash,
            "trust": " ".join(one.code for one in result.trust),
            **_versions(result),
        }
        parent = client.create_run(experiment, tags=tags).info.run_id
        summary = result.model_dump_json(exclude={"experiments"}, indent=2)
        client.log_text(parent, summary, "study_summary.json")
        above = {_PARENT: parent}
        yield parent
    for row in rows(result):
        tags = {
            _NAME: f"{row.configuration} {row.label}".strip(),
            "measurement_config_hash": row.fingerprint,
            "devices": " ".join(row.devices),
            "trust": " ".join(row.trust),
        }
        run = client.create_run(experiment, tags={**above, **tags, **_versions(result)})
        _fill(client, run.info.run_id, row, result)
        client.set_terminated(run.info.run_id)
        yield run.info.run_id
    if above:
        client.set_terminated(above[_PARENT])


def _versions(result: StudyResult | ExperimentResult) -> dict[str, str]:
    if isinstance(result, ExperimentResult):
        return {"schema_version": result.schema_version}
    versions = result.subject.versions if result.subject else {}
    told = {f"version.{name}": " and ".join(found) for name, found in versions.items()}
    return {"schema_version": result.schema_version, **told}


def _fill(
    client: MlflowClient, run: str, row: ExportRow, result: StudyResult | ExperimentResult
) -> None:
    """Log figures and settings; attach them as data, and the configuration where there is one."""
    from mlflow.entities import Metric, Param

    now_ms = int(datetime.now(UTC).timestamp() * 1000)  # a date, as MLflow wants it
    values = (pair for name, one in row.figures.items() for pair in numbers(name, one).items())
    client.log_batch(
        run,
        metrics=[Metric(name, value, now_ms, 0) for name, value in values if value is not None],
        params=[Param(name, str(value)) for name, value in row.settings.items()],
    )
    client.log_text(run, row.model_dump_json(indent=2), "figures.json")
    results = (result,) if isinstance(result, ExperimentResult) else result.experiments
    for one in results:
        if one.measurement_config_hash == row.fingerprint:
            client.log_text(run, one.config.model_dump_json(indent=2), "config.json")
            break
