from __future__ import annotations

from pathlib import Path

import pytest

from llenergymeasure import __version__
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.user_config import load_settings
from llenergymeasure.orchestration.order import WorkOrder


def order(tmp_path, config=None, environ=None, **flags) -> WorkOrder:
    dotted = {name.replace("__", "."): value for name, value in flags.items()}
    settings = load_settings(tmp_path / "absent.yaml", environ or {}, dotted)
    return WorkOrder.of(config or ExperimentConfig(model="m"), settings)


def test_an_order_holds_what_a_worker_needs_and_reads_back_the_same(tmp_path):
    made = order(
        tmp_path,
        environ={"LLEM_CARBON_INTENSITY": "321", "LLEM_DATACENTER_PUE": "1.25"},
        advanced__counter_poll_ms=2.0,
        advanced__power_poll_ms=50.0,
        output__model_cache_dir="/cache",
        runners__pytorch="docker:x",
    )

    assert made.llenergymeasure_version == __version__
    assert made.carbon_intensity_gco2_kwh == 321.0
    assert made.carbon_intensity_source == "$LLEM_CARBON_INTENSITY"
    assert (made.datacenter_pue, made.datacenter_pue_source) == (1.25, "$LLEM_DATACENTER_PUE")
    assert (made.counter_poll_ms, made.power_poll_ms) == (2.0, 50.0)
    assert made.cache_dir == Path("/cache")
    assert made.runner == "docker:x"
    assert WorkOrder.model_validate_json(made.model_dump_json()) == made


def test_nothing_is_invented_where_nothing_is_known(tmp_path):
    made = order(tmp_path)

    assert made.carbon_intensity_gco2_kwh is None
    assert made.carbon_intensity_source is None
    assert (made.datacenter_pue, made.datacenter_pue_source) == (1.0, "default")
    assert made.runner == "local"


@pytest.mark.parametrize(
    ("experiment", "user", "effective"),
    [
        ("auto", "auto", "auto"),
        ("auto", "codecarbon", "codecarbon"),
        ("none", "codecarbon", "none"),
        ("rapl", "auto", "rapl"),
    ],
)
def test_the_user_decides_the_energy_source_only_where_the_experiment_says_auto(
    tmp_path, experiment, user, effective
):
    config = ExperimentConfig(model="m", energy_backend=experiment)

    assert order(tmp_path, config, measurement__energy_backend=user).energy_backend == effective


def test_the_runner_is_that_of_the_backend(tmp_path):
    config = ExperimentConfig(model="m", backend="scripted")

    assert order(tmp_path, config, runners__pytorch="docker:x").runner == "local"
