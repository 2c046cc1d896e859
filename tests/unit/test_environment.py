"""The snapshot of machine and software."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llenergymeasure._version import __version__
from llenergymeasure.core.environment import (
    capture,
    cpu_model,
    engine_versions,
    git_commit,
    installed_versions,
    with_origins,
    without_credentials,
)
from llenergymeasure.core.gpu_survey import GPUSurvey, survey_gpus
from llenergymeasure.domain.environment import EnvironmentSnapshot


def _distribution(site: Path, name: str, version: str, direct_url: str = "") -> Distribution:
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir()
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: not this one\n"
    (folder / "METADATA").write_text(text)
    if direct_url:
        (folder / "direct_url.json").write_text(direct_url)
    return PathDistribution(folder)


def test_the_snapshot_describes_this_machine() -> None:
    snapshot = capture(
        {"carbon_intensity_gco2_kwh": 400.0, "carbon_intensity_source": "user config"},
        gpus=lambda: GPUSurvey(note="no GPU here"),
        environ={"LLEM_CONTAINER_IMAGE": "sha256:abc"},
    )
    assert snapshot.python_version == ".".join(map(str, sys.version_info[:3]))
    assert snapshot.ram_mb is not None
    assert snapshot.ram_mb > 100
    assert snapshot.cpu_count_usable is not None
    assert snapshot.cpu_count_usable >= 1
    assert snapshot.packages["pydantic"].startswith("2.")
    assert snapshot.llenergymeasure_version == __version__
    assert snapshot.container_image == "sha256:abc"
    assert (snapshot.carbon_intensity_gco2_kwh, snapshot.datacenter_pue) == (400.0, 1.0)
    assert (snapshot.gpus, snapshot.gpu_note) == ((), "no GPU here")
    assert datetime.fromisoformat(snapshot.captured_at).tzinfo is not None
    assert EnvironmentSnapshot.model_validate_json(snapshot.model_dump_json()) == snapshot


def test_without_a_container_there_is_no_image() -> None:
    assert capture(gpus=GPUSurvey, environ={}).container_image is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "processor\t: 0\nmodel name\t: Example CPU @ 2.1GHz\nmodel name\t: x\n",
            "Example CPU @ 2.1GHz",
        ),
        ("processor\t: 0\nCPU implementer\t: 0x41\n", None),
        ("model name\t:   \n", None),
    ],
)
def test_the_cpu_is_named_as_the_kernel_names_it(
    tmp_path: Path, text: str, expected: str | None
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert cpu_model(tmp_path / "cpuinfo") == expected
    assert cpu_model(tmp_path / "missing") is None


def test_distributions_are_listed_by_their_headers_and_the_first_of_a_name_wins(
    tmp_path: Path,
) -> None:
    distributions = [
        _distribution(tmp_path, "zeta", "1.0"),
        _distribution(tmp_path, "Alpha", "2.0+cpu"),
        _distribution(tmp_path, "zeta", "9.9"),
    ]
    (tmp_path / "broken-1.dist-info").mkdir()
    (tmp_path / "odd-1.dist-info").mkdir()
    (tmp_path / "odd-1.dist-info" / "METADATA").write_bytes(b"Name: \xff\n")
    distributions += [
        PathDistribution(tmp_path / "broken-1.dist-info"),
        PathDistribution(tmp_path / "odd-1.dist-info"),
    ]
    found = installed_versions(distributions)
    assert list(found.items()) == [("Alpha", "2.0+cpu"), ("zeta", "1.0")]


def test_engines_are_found_under_any_spelling_of_their_name() -> None:
    versions = {"torch": "2.8.0", "tensorrt_llm": "1.0", "numpy": "2.0"}
    assert engine_versions(versions) == {"torch": "2.8.0", "tensorrt-llm": "1.0"}


def test_where_a_package_came_from_is_told_without_its_credentials(tmp_path: Path) -> None:
    distributions = [
        _distribution(
            tmp_path,
            "private",
            "1.0",
            '{"url": "https://bot:s3cr3t@git.example.org/a/b.git?token=s3cr3t",'
            ' "vcs_info": {"vcs": "git", "commit_id": "0123abc"}}',
        ),
        _distribution(
            tmp_path, "mine", "2.0", '{"url": "file:///src/mine", "dir_info": {"editable": true}}'
        ),
        _distribution(tmp_path, "odd", "3.0", "[]"),
        _distribution(tmp_path, "bad", "4.0", "{"),
    ]
    packages = with_origins(installed_versions(distributions), distributions)
    assert packages == {
        "bad": "4.0",
        "mine": "2.0 (editable, file:///src/mine)",
        "odd": "3.0",
        "private": "1.0 (https://git.example.org/a/b.git@0123abc)",
    }


@pytest.mark.parametrize(
    "url",
    [
        "https://user:p4ss@host/x",
        "https://user:p@4ss@host/x",
        "git+ssh://p4ss@host/x",
        "https://host/x?private_token=p4ss",
        "https://host/x#egg=p4ss",
        "https://host/hf_" + "p4ss" * 10,
        "https://[p4ss",
    ],
)
def test_no_credential_of_an_address_is_kept(url: str) -> None:
    assert "4ss" not in without_credentials(url)


def _commit(root: Path) -> str:
    git = ["git", "-C", str(root), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    done = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_is_that_of_the_checkout_the_package_runs_from(tmp_path: Path) -> None:
    (tmp_path / "src" / "package").mkdir(parents=True)
    assert git_commit(tmp_path / "src" / "package") is None
    commit = _commit(tmp_path)
    assert git_commit(tmp_path / "src" / "package") == commit


def test_the_repository_of_a_hook_that_started_us_is_not_mistaken_for_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "src" / "package").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    commit = _commit(tmp_path)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert git_commit(tmp_path / "src" / "package") == commit


def test_a_package_installed_inside_another_repository_has_no_commit(tmp_path: Path) -> None:
    package = tmp_path / ".venv" / "lib" / "site-packages" / "package"
    package.mkdir(parents=True)
    _commit(tmp_path)
    assert git_commit(package) is None


def test_a_checkout_without_any_commit_has_none(tmp_path: Path) -> None:
    (tmp_path / "src" / "package").mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert git_commit(tmp_path / "src" / "package") is None


class RecordedNVML:
    """The functions of ``pynvml`` that a survey calls, answering from a record."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2

    class NVMLError(Exception):
        pass

    def __init__(self, answers: dict[str, Any], *, library: bool = True) -> None:
        self._answers, self._library = answers, library
        self.clients = 0

    def nvmlInit(self) -> None:  # noqa: N802 - its name in pynvml
        if not self._library:
            raise self.NVMLError("NVML Shared Library Not Found")
        self.clients += 1

    def nvmlShutdown(self) -> None:  # noqa: N802 - its name in pynvml
        self.clients -= 1

    def __getattr__(self, name: str) -> Any:
        def answer(*arguments: Any) -> Any:
            value = self._answers.get(name)
            if value is None:
                raise self.NVMLError("Not Supported")
            return value(*arguments) if callable(value) else value

        return answer


H200 = {
    "nvmlDeviceGetCount": 1,
    "nvmlDeviceGetHandleByIndex": lambda index: f"handle {index}",
    "nvmlDeviceGetUUID": "GPU-1",
    "nvmlDeviceGetName": b"NVIDIA H200",
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=143_771 << 20),
    "nvmlDeviceGetEnforcedPowerLimit": 650_000,
    "nvmlDeviceGetPowerManagementDefaultLimit": 700_000,
    "nvmlDeviceGetPersistenceMode": 1,
    "nvmlDeviceGetEccMode": [1, 1],
    "nvmlDeviceGetMigMode": [0, 1],
    "nvmlDeviceGetClockInfo": lambda handle, clock: {1: 345, 2: 3201}[clock],
    "nvmlDeviceGetMaxClockInfo": lambda handle, clock: 1980,
    "nvmlSystemGetDriverVersion": "570.1",
    "nvmlSystemGetCudaDriverVersion_v2": 12080,
}


def test_a_gpu_is_described_in_the_units_the_names_say() -> None:
    nvml = RecordedNVML(H200)
    survey = survey_gpus(nvml)
    (gpu,) = survey.gpus
    assert gpu.model_dump() == {
        "index": 0,
        "uuid": "GPU-1",
        "name": "NVIDIA H200",
        "memory_mb": 143_771.0,
        "power_limit_w": 650.0,
        "power_limit_default_w": 700.0,
        "persistence_mode": True,
        "ecc_mode": True,
        "mig_mode": False,
        "clock_sm_mhz": 345,
        "clock_sm_max_mhz": 1980,
        "clock_memory_mhz": 3201,
    }
    assert (survey.driver_version, survey.cuda_version) == ("570.1", "12.8")
    assert survey.note is None
    assert nvml.clients == 0


def test_what_a_board_does_not_tell_is_none_and_not_zero() -> None:
    few = ("nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID")
    answers = {name: H200[name] for name in (*few, "nvmlDeviceGetName")}
    (gpu,) = survey_gpus(RecordedNVML(answers)).gpus
    told = {name for name, value in gpu.model_dump().items() if value is not None}
    assert told == {"index", "uuid", "name"}


def test_a_machine_without_the_driver_has_no_gpu_and_a_note() -> None:
    survey = survey_gpus(RecordedNVML({}, library=False))
    assert survey == GPUSurvey(note="NVML is not available: NVML Shared Library Not Found")


def test_a_driver_without_a_board_says_so() -> None:
    survey = survey_gpus(RecordedNVML({**H200, "nvmlDeviceGetCount": 0}))
    assert (survey.gpus, survey.note) == ((), "NVML sees no GPU")
    assert survey.driver_version == "570.1"


def test_a_board_that_fell_off_the_bus_is_noted_and_the_rest_is_kept() -> None:
    def handle(index: int) -> str:
        if index == 0:
            raise RecordedNVML.NVMLError("GPU is lost")
        return "handle"

    answers = {**H200, "nvmlDeviceGetCount": 2, "nvmlDeviceGetHandleByIndex": handle}
    survey = survey_gpus(RecordedNVML(answers))
    assert [gpu.index for gpu in survey.gpus] == [1]
    assert survey.note == "GPU 0: GPU is lost"


def test_the_functions_of_the_record_are_those_of_pynvml() -> None:
    import pynvml

    assert all(callable(getattr(pynvml, name)) for name in H200)
    assert pynvml.NVML_CLOCK_SM == RecordedNVML.NVML_CLOCK_SM
    assert pynvml.NVML_CLOCK_MEM == RecordedNVML.NVML_CLOCK_MEM
