"""Which energy source is chosen, and what is said about it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import llenergymeasure
from llenergymeasure.config.energy_sources import ENERGY_SOURCES, EnergySourceFacts, auto_order
from llenergymeasure.core.energy import energy_problems, get_active_energy_backend
from llenergymeasure.core.energy.none import NoSource
from llenergymeasure.core.energy.protocol import Coverage, SamplingRates
from llenergymeasure.domain.environment import DeviceTarget
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


def table(**implementations: type) -> dict[str, EnergySourceFacts]:
    """Put test sources in place of those of the registry; of the others the package is absent."""
    bare = {
        name: replace(entry, package="no-such-package", module="no_such", install="pip install it")
        for name, entry in ENERGY_SOURCES.items()
    }
    bare["none"] = ENERGY_SOURCES["none"]
    for name, kind in implementations.items():
        bare[name] = replace(
            ENERGY_SOURCES[name],
            implementation=f"{__name__}:{kind.__name__}",
            package=None,
        )
    return bare


def chosen(target: DeviceTarget, **implementations: type) -> str:
    return get_active_energy_backend("auto", target, RATES, table(**implementations)).name


def test_every_source_has_a_place_in_the_automatic_order_of_its_own():
    for device in ("gpu", "cpu"):
        places = [facts.auto[device] for facts in ENERGY_SOURCES.values() if device in facts.auto]
        assert len(set(places)) == len(places)
    assert {*auto_order("gpu"), *auto_order("cpu")} == set(ENERGY_SOURCES)


def test_measured_sources_go_before_modelled_ones_and_none_is_the_last_resort():
    worth = ["measured", "modelled", "unmeasurable"]
    for device in ("gpu", "cpu"):
        kinds = [ENERGY_SOURCES[name].kind for name in auto_order(device, ENERGY_SOURCES)]
        assert kinds == sorted(kinds, key=worth.index)


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


SOURCE = Path(llenergymeasure.__file__).parent
TABLE = Path("config/energy_sources.py")
NAMES = set(ENERGY_SOURCES) - {"none"}
"""Not ``none``, which is also what an edge, a sensor or a baseline is that there is not."""
ELSEWHERE = {"cli/app.py": "the distributions whose versions are told, which a test holds alike"}
"""Files beside a source's own and the table that name one, and why."""


def named_in(path: Path) -> set[str]:
    """Give the sources that a text of a file is, or tells to set."""
    texts = [
        node.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    told = {word for text in texts for word in re.findall(r"energy_backend: (\w+)", text)}
    return NAMES & {*texts, *told}


def test_no_source_is_named_outside_its_own_files_and_the_table():
    assert named_in(SOURCE / TABLE) == NAMES
    found = {
        str(file): named
        for path in SOURCE.rglob("*.py")
        if (file := path.relative_to(SOURCE)) != TABLE
        and (named := named_in(path) - {file.stem.split("_")[0]})
    }
    assert set(found) == set(ELSEWHERE), found
