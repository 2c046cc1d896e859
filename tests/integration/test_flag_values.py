"""Flags: every wrong value ends with exit code 2 and names the flag; help and completion."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from llenergymeasure import locks
from llenergymeasure.cli.commands import run as run_command
from llenergymeasure.orchestration.device_lock import lock_path
from tests.support.cli import QUICK, Llem
from tests.support.study_run import scripted_study

WRONG = {
    "--example": ("nosuch", "../quickstart", ""),
    "--model": ("",),
    "--backend": ("scripte", "scripted,pytorch"),
    "--dataset": ("{synthetic: [", "{a: 1}"),
    "-n": ("0", "x", "1.5", "1,8", "-3", ""),
    "--batch-size": ("0", "x", "1,8"),
    "--precision": ("fp7", "fp32,bf16"),
    "--max-new-tokens": ("0", "x", "1,8"),
    "--energy-backend": ("nvmll", "none,auto"),
    "--set": ("n", "n=0", "nn=1", "window.phases=x", "execution.n_cycles=0", "n=[", "batch_size=8"),
    "--sweep": ("n", "n=0", "n=", "nn=1,2", "batch_size=1,8", "n=1,[", "precision=bf16,fp7"),
    "--cycles": ("0", "x", "2,3"),
    "--order": ("random",),
    "--wait": ("x", "-1", "10 weeks", ""),
    "--resume": ("absent", "home"),
    "--again": ("x",),
    "--runner": ("ssh:x", "nobody=local"),
    "--output": ("",),
}
"""Flags that take a value, and values that none of them takes whatever else is given."""
ALONE = ("--resume", "--again")


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    return Llem(tmp_path)


def test_every_flag_with_a_value_is_tried() -> None:
    command = typer.main.get_command(run_command.app)
    options = [one for one in command.params if one.param_type_name == "option"]
    valued = {one.opts[0] for one in options if not one.is_flag}
    assert valued == set(WRONG)


@pytest.mark.parametrize("flag", WRONG)
def test_every_wrong_value_of_a_flag_ends_with_2_and_names_it(llem: Llem, flag: str) -> None:
    scripted_study(llem)
    for value in WRONG[flag]:
        flags = (flag, value) if flag != "--again" else (flag, value, "--resume", "x")
        for rest in ((),) if flag in ALONE else (QUICK, ("study.yaml",)):
            done = llem.inline("run", *rest, *flags)
            assert (done.code, done.out) == (2, ""), (rest, flags, done.err)
            assert flag in done.err or value in done.err
            assert len(done.err) < 1000


@pytest.mark.parametrize("value", ["1,8", "1, 8"])
def test_several_values_of_a_flag_name_the_one_that_takes_them(llem: Llem, value: str) -> None:
    said = llem.fails("run", *QUICK, "--batch-size", value, code=2, inline=True)
    assert f"--batch-size takes one value; --sweep pytorch.batch_size={value} " in said


def test_a_study_of_one_line(llem: Llem) -> None:
    flags = ("--sweep", "scripted.batch_size=1,2", "--sweep", "scripted.itl_ms=1,2")
    done = llem("run", *QUICK, *flags, "--set", "execution.seed=3", "--cycles", "1", "--json")
    assert done.code == 0, done.err
    assert "4 configurations, 4 experiments" in done.err
    assert '"n_cycles": 1' in done.out


def test_all_prompts_of_a_small_dataset_are_used_and_the_result_says_how_many(llem: Llem) -> None:
    llem.write("few.jsonl", '{"prompt": "a"}\n{"prompt": "b"}\n')
    few = ("-m", "m", "-b", "scripted", "-d", "few.jsonl", "--energy-backend", "none")
    plan = llem("run", *few, "--dry-run")
    assert "prompts     all, 100 at most, of few.jsonl" in plan.out
    done = llem("run", *few, "--max-new-tokens", "2", "--json", "-q")
    assert done.code == 0, done.err
    assert '"used": 2' in done.out
    asked = llem("run", *few, "-n", "3")
    assert asked.code == 1
    assert "3 prompts asked for, few.jsonl has 2" in asked.err


@pytest.mark.parametrize("command", [(), ("run",), ("config",)])
def test_h_is_help(llem: Llem, command: tuple[str, ...]) -> None:
    short, whole = llem.inline(*command, "-h"), llem.inline(*command, "--help")
    assert short == whole
    assert short.code == 0
    assert "-h, --help" in short.out


def test_v_in_capitals_tells_versions(llem: Llem) -> None:
    assert llem.inline("-V") == llem.inline("--version")


@pytest.mark.parametrize(
    "choices",
    [
        "--precision <fp32|fp16|bf16|int8|fp8|int4>",
        "--order <balanced|interleaved|shuffled|sequential>",
        "--energy-backend <auto|nvml|zeus|rapl|codecarbon|none>",
        "--backend <pytorch|vllm|tensorrt|scripted>",
    ],
)
def test_help_lists_what_a_flag_can_be(llem: Llem, choices: str) -> None:
    assert choices in llem.inline("run", "--help").out


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("llem c", ["config"]),
        ("llem run --sw", ["--sweep"]),
        ("llem run --precision bf", ["bf16"]),
        ("llem run --order s", ["sequential", "shuffled"]),
        ("llem run --energy-backend n", ["none", "nvml"]),
        ("llem run -b vl", ["vllm"]),
    ],
)
def test_a_shell_is_told_how_a_line_may_go_on(llem: Llem, words: str, offered: list[str]) -> None:
    llem.environment |= {
        "_LLEM_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = llem.inline()
    assert (done.code, done.err) == (0, "")
    assert sorted(done.out.split()) == offered


def test_the_script_for_a_shell_is_shown_and_installed(
    llem: Llem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))
    shown = llem.inline("--show-completion")
    assert shown.code == 0
    assert "_LLEM_COMPLETE=complete_bash" in shown.out
    installed = llem.inline("--install-completion")
    assert installed.code == 0
    assert (llem.folder / "home/.bash_completions/llem.sh").read_text() == shown.out.rstrip("\n")


def test_a_device_that_another_measurement_has_is_waited_for_no_longer_than_asked(
    llem: Llem,
) -> None:
    folder = Path(llem.variables()["LLEM_LOCK_DIR"])
    lock = locks.take(lock_path("cpu", folder), everybody=True)
    assert lock is not None
    at_once = llem("run", *QUICK, "--no-wait", "--json")
    assert (at_once.code, at_once.error["code"]) == (1, "experiment")
    assert "is measured by pid" in at_once.err
    assert "waiting" not in at_once.err
    later = llem("run", *QUICK, "--wait", "0.5s")
    assert later.code == 1
    assert "waiting for the CPU of this machine" in later.err
    assert "was not free within 0.5 s" in later.err
    lock.release()
    assert llem("run", *QUICK, "--no-wait").code == 0


def test_two_flags_of_one_field_are_refused_where_a_study_goes_on_as_well(llem: Llem) -> None:
    for flags in (("execution.n_cycles=5", "--cycles", "6"), ("execution.n_cycles=5", "--no-gaps")):
        done = llem.inline("run", "--resume", "absent", "--set", *flags)
        contradiction = "--set execution.n_cycles and --cycles say different things" in done.err
        assert (done.code, contradiction) == (2, "--cycles" in flags)
