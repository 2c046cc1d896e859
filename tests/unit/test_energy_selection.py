"""Which energy source is chosen, and what is said about it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from llenergymeasure.config.plugins import PluginEntry
from llenergymeasure.config.registry import ENERGY_SOURCES
from llenergymeasure.core.energy import energy_problems, get_active_energy_backend
from llenergymeasure.core.energy.none import NoSource
from llenergymeasure.core.energy.protocol import Coverage, SamplingRates
from llenergymeasure.core.energy.selection import AUTO_ORDER
from llenergymeasure.domain.target import DeviceTarget
from llenergymeasure.exceptions import PreFlightError

CPU = DeviceTarget("cpu")
GPU = DeviceTarget("gpu", ("GPU-aaaa",))
RATES = SamplingRates()


class SeesEverything(NoSource):
    name = "seeing"

    @staticmethod
    def coverage(target: DeviceTarget) -> Coverage:
        return Coverage("measured", f"the {target.kind}")


class SeesNothing(NoSource):
    name = "blind"

    @staticmethod
    def coverage(target: DeviceTarget) -> Coverage:
        return Coverage(None, "counters are for root only", "grant read access")


def table(**implementations: type) -> dict[str, PluginEntry]:
    """Put test sources in place of those of the registry; of the others the package is absent."""
    bare = {
        name: replace(entry, package="no-such-package", module="no_such", install="pip install it")
        for name, entry in ENERGY_SOURCES.items()
    }
    bare["none"] = ENERGY_SOURCES["none"]
    for name, kind in implementations.items():
        bare[name] = PluginEntry(name, f"{__name__}:{kind.__name__}")
    return bare


def chosen(target: DeviceTarget, **implementations: type) -> str:
    return get_active_energy_backend("auto", target, RATES, table(**implementations)).name


def test_every_source_of_the_automatic_order_is_in_the_table():
    assert {name for order in AUTO_ORDER.values() for name in order} == set(ENERGY_SOURCES)


def test_auto_on_a_gpu_prefers_zeus_then_nvml_then_codecarbon_then_none():
    yes = SeesEverything
    assert chosen(GPU, zeus=yes, nvml=yes, codecarbon=yes, rapl=yes) == "zeus"
    assert chosen(GPU, nvml=yes, codecarbon=yes, rapl=yes) == "nvml"
    assert chosen(GPU, codecarbon=yes, rapl=yes) == "codecarbon"
    assert chosen(GPU, rapl=yes) == "none"


def test_auto_on_a_cpu_prefers_rapl_then_codecarbon_then_none():
    yes = SeesEverything
    assert chosen(CPU, zeus=yes, nvml=yes, codecarbon=yes, rapl=yes) == "rapl"
    assert chosen(CPU, zeus=yes, nvml=yes, codecarbon=yes) == "codecarbon"
    assert chosen(CPU, zeus=yes, nvml=yes) == "none"


def test_auto_passes_over_a_source_that_sees_nothing_and_says_why():
    selection = get_active_energy_backend(
        "auto", CPU, RATES, table(rapl=SeesNothing, codecarbon=SeesEverything)
    )

    assert selection.name == "codecarbon"
    assert selection.reason == (
        "auto: counters are for root only; codecarbon is used: measured, the cpu"
    )
    assert selection.coverage == Coverage("measured", "the cpu")


def test_auto_names_what_is_not_installed():
    reason = get_active_energy_backend("auto", CPU, RATES, table()).reason

    assert "'rapl' needs the package no-such-package" in reason
    assert reason.endswith("none is used: unmeasurable, nothing is read")


def test_a_source_asked_for_by_name_is_taken_even_if_auto_would_not():
    sources = table(rapl=SeesEverything, codecarbon=SeesEverything)
    selection = get_active_energy_backend("codecarbon", CPU, RATES, sources)

    assert selection.name == "codecarbon"
    assert selection.reason == "codecarbon was asked for: measured, the cpu"


def test_a_source_asked_for_by_name_is_never_replaced():
    sources = table(rapl=SeesNothing, codecarbon=SeesEverything)
    with pytest.raises(PreFlightError) as caught:
        get_active_energy_backend("rapl", CPU, RATES, sources)

    (problem,) = caught.value.problems
    assert problem.what == "counters are for root only"
    assert problem.where == "energy_backend"
    assert problem.remedy == "grant read access"
    assert energy_problems("rapl", CPU, sources) == [problem]


def test_a_source_whose_package_is_absent_is_a_problem_with_the_line_that_installs_it():
    sources = table(zeus=SeesEverything)
    sources["zeus"] = replace(
        sources["zeus"], package="no-such-package", module="no_such", install="pip install it"
    )
    (problem,) = energy_problems("zeus", GPU, sources)

    assert "no-such-package" in problem.what
    assert problem.remedy == "pip install it"
    assert get_active_energy_backend("auto", GPU, RATES, sources).name == "none"


@pytest.mark.parametrize("name", ["auto", "none"])
def test_auto_and_none_never_have_a_problem(name):
    assert energy_problems(name, CPU) == energy_problems(name, GPU) == []


def test_importing_the_package_of_sources_stays_light():
    script = (
        "import sys, llenergymeasure.core.energy as e; assert 'pydantic' not in sys.modules; "
        "e.Selection; assert 'pydantic' in sys.modules and 'codecarbon' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {script}"], check=True
    )


def test_the_package_has_only_the_names_it_lists():
    from llenergymeasure.core import energy

    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = energy.nonsense
