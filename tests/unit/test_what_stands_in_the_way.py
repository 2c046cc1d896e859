"""What the system refuses is told by what stands in the way, not by where that came to light."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from llenergymeasure import plain_files
from llenergymeasure.config.user_config import load_settings
from llenergymeasure.domain.results import ExperimentResult
from llenergymeasure.exceptions import (
    ConfigError,
    ExperimentError,
    FlagError,
    LLEMError,
    cause_and_remedy,
    lost_folder,
)
from llenergymeasure.results.filenames import claim_directory
from llenergymeasure.results.files import write_json_atomically
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.results.persistence import DirectoryRepository
from llenergymeasure.study.prepare import find_study
from llenergymeasure.study.resume import is_whole
from tests.support.make_result import make_process


def refused(number: int, path: Path) -> str:
    return cause_and_remedy(OSError(number, os.strerror(number)), path)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "No space left on device; make room"),
        (errno.EDQUOT, "make room"),
        (errno.EFBIG, "File too large; make room"),
        (errno.EACCES, "Permission denied; mend the permissions"),
        (errno.EROFS, "Read-only file system; mend the permissions"),
        (errno.EIO, "Input/output error; mend that"),
    ],
)
def test_a_cause_that_the_system_names_is_told_with_what_mends_it(
    tmp_path: Path, number: int, says: str
) -> None:
    assert says in refused(number, tmp_path / "result.json")


def test_without_a_number_its_own_words_are_told(tmp_path: Path) -> None:
    assert cause_and_remedy(OSError("parquet says no"), tmp_path) == "parquet says no; mend that"


@pytest.fixture
def dangling(tmp_path: Path) -> Path:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    return link


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    link = tmp_path / "loop"
    link.symlink_to(link)
    return link


def no_place(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        claim_directory(path, "results")
    assert caught.value.where == str(path)
    assert "put results elsewhere with --output" in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("below", ["", "more", "more/and/more"])
def test_results_below_a_link_that_leads_nowhere(dangling: Path, below: str) -> None:
    said = no_place(dangling / below)
    assert f"{dangling} is a link to {dangling.parent / 'nowhere'}, which leads nowhere" in said
    assert "exists" not in said


@pytest.mark.parametrize("below", ["", "more"])
def test_results_below_a_link_to_itself(loop: Path, below: str) -> None:
    assert f"{loop} is a link to {loop}, which leads nowhere" in no_place(loop / below)


@pytest.mark.parametrize("below", ["", "more", "more/and/more"])
def test_results_below_a_file(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.touch()
    assert f"{file} is no directory; take it away" in no_place(file / below)


@pytest.mark.parametrize("path", ["/dev/null", "/dev/full/x"])
def test_results_below_a_device(path: str) -> None:
    assert "/".join(path.split("/")[:3]) + " is no directory" in no_place(Path(path))


def test_a_place_where_the_system_makes_no_folder_is_not_said_to_be_gone() -> None:
    said = no_place(Path("/proc/below"))
    assert "gone" not in said


def not_written(path: Path) -> str:
    with pytest.raises(ExperimentError) as caught:
        write_json_atomically(path, "{}")
    assert caught.value.where == str(path)
    return caught.value.message


@pytest.mark.parametrize(
    "name",
    ["result.json", "error.json", "study_summary.json", "study_manifest.json", "requests.parquet"],
)
def test_a_directory_in_the_place_of_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name / "full").mkdir(parents=True)
    said = not_written(tmp_path / name)
    assert f"{tmp_path / name} is a directory; take it away" in said
    assert "make room" not in said
    assert [path.name for path in tmp_path.iterdir()] == [name], "nothing is left beside it"


def test_a_directory_that_went_meanwhile(tmp_path: Path) -> None:
    said = not_written(tmp_path / "slot" / "result.json")
    assert f"{tmp_path / 'slot'} is not there any more; put it back" in said
    assert "make room" not in said


@pytest.fixture
def lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "lost"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    return folder


@pytest.mark.usefixtures("lost")
def test_a_working_directory_that_went() -> None:
    assert "the working directory is gone" in str(lost_folder())
    assert "the working directory is gone" in no_place(Path("results"))
    assert "the working directory is gone" in not_written(Path("result.json"))


def test_a_working_directory_that_is_there() -> None:
    assert lost_folder() is None


def test_a_result_that_is_a_directory_is_called_that(tmp_path: Path) -> None:
    file = ExperimentDirectory(tmp_path).result
    file.mkdir()
    for path in (file, tmp_path):
        with pytest.raises(LLEMError) as caught:
            ExperimentResult.from_json(path)
        assert str(file) in caught.value.message
        assert "directory" in caught.value.message
        assert "result.json/result.json" not in caught.value.message
    assert not is_whole(file)


def test_raw_samples_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    directory = ExperimentDirectory(tmp_path)
    directory.requests.mkdir()
    with pytest.raises(ExperimentError, match=r"requests\.parquet is a directory; take it away"):
        DirectoryRepository(directory).save_samples([make_process()], [])


def test_a_file_to_read_that_is_a_link_to_nowhere(dangling: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is a link to .* which leads nowhere"):
        plain_files.opened(dangling)
    with pytest.raises(FileNotFoundError, match="No such file or directory"):
        plain_files.opened(dangling.parent / "nothing")


def test_a_study_to_go_on_with_that_is_a_link_to_nowhere(dangling: Path) -> None:
    with pytest.raises(FlagError, match=r"is a link to .* which leads nowhere"):
        find_study(dangling)


# The user's configuration -------------------------------------------------------------------------


def no_settings(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(path, {})
    return caught.value.message


def test_a_configuration_that_is_a_link_to_nowhere(dangling: Path) -> None:
    said = no_settings(dangling)
    assert f"{dangling} is a link to" in said
    assert "leads nowhere; mend the link, or take it away" in said


def test_a_configuration_whose_folder_is_a_link_to_nowhere(dangling: Path) -> None:
    assert f"{dangling} is a link to" in no_settings(dangling / "config.yaml")


@pytest.mark.parametrize("name", ["", "config.yaml"])
def test_a_configuration_that_is_a_link_to_itself(loop: Path, name: str) -> None:
    assert f"{loop} is a link to {loop}, which leads nowhere" in no_settings(loop / name)


def test_a_configuration_that_is_a_directory(tmp_path: Path) -> None:
    assert str(tmp_path) in no_settings(tmp_path)
    assert "directory" in no_settings(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_configuration_that_may_not_be_read(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.touch(mode=0)
    assert "Permission denied" in no_settings(file)


@pytest.mark.parametrize("home", ["/dev/null", "/nonexistent"])
def test_a_user_without_a_home_has_no_configuration(home: str) -> None:
    settings = load_settings(Path(home) / ".config" / "llenergymeasure" / "config.yaml", {})
    assert settings.origins == {}
