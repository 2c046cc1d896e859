"""Credentials are planted wherever they may come from, and looked for wherever they may end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import QUICK, Done, Llem
from tests.support.credentials import KINDS, SHAPED, Planted, found_in, texts_below
from tests.support.study_run import NO_GAPS

# A backend whose engine prints every credential that it finds, and can fail with them all.
TALKING = """
import logging, os, sys


class Backend(ScriptedBackend):
    def load(self, config, cache_dir):
        for name in os.environ["PLANTED"].split():
            value = os.environ[name]
            print("out", value)
            print(f"--token {value}", repr(value), file=sys.stderr)
            logging.getLogger("engine").warning("log %s of %s", value, {"key": value})
            os.write(1, f"native {value}\\n".encode())
        told = os.environ["TEXTS"]
        print(told)
        if config.section.shout == "fail":
            raise RuntimeError("refused " + told + " ".join(os.environ.values()))
        return super().load(config, cache_dir)
"""
STUDY = f"""
name: planted
model: random:tiny-llama
backend: thirdparty
energy_backend: none
n: 1
max_new_tokens: 2
warmup: {{n_warmup: 0}}
sweep: {{thirdparty.shout: [well, fail]}}
execution: {{n_cycles: 1, {NO_GAPS}}}
"""


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    folder = tmp_path / "own"
    folder.mkdir()
    return Llem(folder)


def plant(llem: Llem) -> None:
    """Put all kinds into the environment, and into the origins of installed packages."""
    llem.plugin(TALKING)
    variables = {one.variable: one.secret for one in KINDS}
    texts = "\n".join(one.text for one in SHAPED)
    llem.environment |= {**variables, "PLANTED": " ".join(variables), "TEXTS": texts}
    for number, one in enumerate(SHAPED):
        host, text = f"https://host.example/{number}", one.text.replace("\n", "%0A")
        for part, origin in {
            "user": {"url": f"https://me:{one.secret}@host.example/x.git"},
            "path": {"url": f"{host}/{text}/x.git?key={one.secret}#{one.secret}"},
            "commit": {"url": host, "vcs_info": {"vcs": "git", "commit_id": one.text}},
        }.items():
            folder = f"site/planted_{part}_{number}-1.0.dist-info"
            about = f"Metadata-Version: 2.1\nName: planted-{part}-{number}\nVersion: 1.0\n"
            llem.write(f"{folder}/METADATA", about)
            llem.write(f"{folder}/direct_url.json", json.dumps(origin))


def told(done: Done) -> list[str]:
    return found_in(done.out) + found_in(done.err)


def test_no_credential_of_this_machine_is_printed_or_stored(llem: Llem) -> None:
    plant(llem)
    path = str(llem.write("study.yaml", STUDY))
    study = llem("run", path, "--json", "-v")
    assert study.code == 1, study.err
    assert told(study) == []
    (directory,) = (llem.folder / "results").iterdir()
    assert json.loads(study.out)["failed"][0]["message"].count("***") >= len(SHAPED)
    stored = json.loads(next(directory.glob("experiments/*/result.json")).read_bytes())
    assert "host.example/0" in str(stored["environment"]["packages"]["planted-path-0"])
    for done in (llem("config", "-v"), llem("run", path, "--dry-run")):
        assert done.code == 0, done.err
        assert told(done) == []
    shutil.rmtree(llem.folder / "site")  # where they were planted
    kept = dict(texts_below(llem.folder))
    assert {name: found for name, text in kept.items() if (found := found_in(text))} == {}
    names = {Path(name).name for name in kept}
    wanted = {"config.json", "result.json", "error.json", "log.txt", "events.jsonl"}
    wanted |= {"requests.parquet", "timeseries.parquet", "summary.parquet"}
    assert wanted | {"study_manifest.json", "study_plan.json", "study_summary.json"} <= names
    logs = [text for name, text in kept.items() if name.endswith("log.txt") and name[:5] != "name "]
    for way in ("out ***", "--token ***", "log *** of", "native ***"):
        assert all(log.count(way) >= len(KINDS) for log in logs), way


FIELDS = {
    "model": "model: {}",
    "revision": "model: m\nrevision: {}",
    "dataset": "model: m\ndataset: {}",
    "decoder.draft_model": "model: m\ndecoder: {{speculative_decoding: true, draft_model: {}}}",
    "lora.adapter_id": "model: m\nlora: {{adapter_id: {}}}",
    "lora.adapter_path": "model: m\nlora: {{adapter_path: {}}}",
    "passthrough_kwargs.a.0": "model: m\npassthrough_kwargs: {{a: [{}]}}",
    "scripted.load_log": "model: m\nbackend: scripted\nscripted: {{load_log: {}}}",
    "sweep.revision.1": "model: m\nsweep: {{revision: [main, {}]}}",
    "experiments.1.model": "experiments: [{{model: m}}, {{model: {}}}]",
    "name": "model: m\nname: {}\nsweep: {{n: [1, 2]}}",
}
"""YAML that holds a credential in a field, by the name of the field."""
FLAGS = {
    "--model": ("--model",),
    "--dataset": (*QUICK, "--dataset"),
    "output.results_dir": (*QUICK, "--output"),
    "runners.scripted": (*QUICK, "--runner"),
}
USER = {
    "output.results_dir": "output: {{results_dir: {}}}",
    "output.model_cache_dir": "output: {{model_cache_dir: {}}}",
    "runners.vllm": "runners: {{vllm: {}}}",
}
VARIABLES = {"LLEM_RESULTS_DIR": "{}", "LLEM_RUNNER_VLLM": "docker:{}"}


def planted(one: Planted) -> str:
    return one.text or f"x/{one.secret}"


def refused(llem: Llem, where: str, one: Planted, *arguments: str) -> None:
    """See that a command refuses a credential, naming its place and not the credential."""
    llem.environment[one.variable] = one.secret  # as whoever writes it down has it too
    for more in ((), ("--json", "-v"), ("--dry-run",)):
        done = llem.inline("run", *arguments, *more)
        assert done.code in (1, 2), (one.kind, where)
        assert told(done) == [], (one.kind, where)
        assert where in done.err, (one.kind, where, done.err)
        assert "looks like a credential" in done.err, (one.kind, where, done.err)
    assert not llem.left("results")
    del llem.environment[one.variable]


def pairs(places: dict[str, object], *, wide: bool) -> Iterator[tuple[str, Planted]]:
    """Put each kind into one place and each place under one kind; or each into each."""
    names = list(places)
    for number in range(max(len(KINDS), len(names))):
        yield names[number % len(names)], KINDS[number % len(KINDS)]
    if wide:
        yield from ((name, one) for name in names for one in KINDS)


WIDE = pytest.mark.parametrize("wide", [False, pytest.param(True, marks=pytest.mark.exhaustive)])


@WIDE
def test_a_credential_in_a_configuration_is_refused_by_the_name_of_its_field(
    llem: Llem, wide: bool
) -> None:
    for field, one in pairs(dict(FIELDS), wide=wide):
        text = FIELDS[field].format(json.dumps(planted(one)))
        refused(llem, field, one, str(llem.write("asked.yaml", text)))


@WIDE
def test_a_credential_in_a_flag_is_refused_by_the_name_of_the_flag(llem: Llem, wide: bool) -> None:
    for flag, one in pairs(dict(FLAGS), wide=wide):
        value = f"docker:{planted(one)}" if flag.startswith("runners") else planted(one)
        refused(llem, flag, one, *FLAGS[flag], value)


@WIDE
def test_a_credential_in_the_users_own_settings_is_refused(llem: Llem, wide: bool) -> None:
    for field, one in pairs(dict(USER), wide=wide):
        value = f"docker:{planted(one)}" if field.startswith("runners") else planted(one)
        path = llem.user_config(USER[field].format(json.dumps(value)))
        llem.environment[one.variable] = one.secret
        assert told(llem.inline("config", "-v")) == []
        refused(llem, field, one, *QUICK)
        path.unlink()
    for variable, one in pairs(dict(VARIABLES), wide=wide):
        llem.environment[variable] = VARIABLES[variable].format(planted(one))
        refused(llem, variable, one, *QUICK)
        del llem.environment[variable]


IN_A_PATH = [one for one in SHAPED if not {"/", "\n"} & set(one.text)]


@pytest.mark.parametrize("one", IN_A_PATH, ids=lambda one: one.kind)
def test_a_folder_of_that_name_behind_a_link_shows_nowhere(llem: Llem, one: Planted) -> None:
    folder = llem.folder / "models" / one.text
    folder.mkdir(parents=True)
    (llem.folder / "m").symlink_to(folder)
    done = llem.inline("run", str(llem.write("asked.yaml", "model: ./m\nbackend: scripted")))
    assert (done.code, told(done)) == (1, [])
    assert "model: looks like a credential" in done.err
