"""Results, plans and models with anything in them: an answer, or a message of this program's own.

No traceback, none above 4,000 characters, and soon: whatever stands in a file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.shared import problems
from llenergymeasure.core.memory_estimate import estimate_memory
from llenergymeasure.core.models import identity, loadable, quantised, sources
from llenergymeasure.domain.results import ExperimentResult
from llenergymeasure.exceptions import ConfigError, LLEMError
from llenergymeasure.results.files import SEAL, checksum
from llenergymeasure.results.layout import ExperimentDirectory, StudyDirectory
from llenergymeasure.results.persistence import read_failure
from llenergymeasure.results.recognise import explained
from llenergymeasure.study.manifest import read_plan, write_plan
from llenergymeasure.study.resume import look
from tests.support.fuzz import check_call
from tests.support.fuzz_models import VARIANTS, files_of_a_model
from tests.support.mangled import mangled
from tests.support.samples import EXHAUSTIVE
from tests.support.study_on_disk import break_off, make_plan, make_study, scripted

CASES = pytest.mark.parametrize(
    "cases", [pytest.param(60, id="some"), pytest.param(2500, id="many", marks=EXHAUSTIVE)]
)


def hold(paths: list[Path], look_at: Callable[[], object], cases: int, what: str) -> Counter[str]:
    """Mangle one of some files at a time, look at all, and count how it was taken."""
    whole = {path: path.read_bytes() for path in paths}
    counts: Counter[str] = Counter()
    for case in range(cases):
        random = Random(f"{what} {case}")
        path = random.choice(paths)
        content = mangled(whole[path], random)
        path.write_bytes(sealed(content) if random.random() < 0.7 else content)
        try:
            said = check_call(look_at)
        except Exception as error:
            raise AssertionError(f"case {case} of {what}, {path.name}") from error
        counts["refused" if isinstance(said, LLEMError) else "taken"] += 1
        path.write_bytes(whole[path])
    print(f"{cases} cases of {what}: {dict(counts)}")
    return counts


def sealed(content: bytes) -> bytes:
    """Seal a file anew, where it has a seal: behind it begins what reads the rest."""
    try:
        data = json.loads(content)
        if not isinstance(data, dict) or SEAL not in data:
            return content
        return json.dumps({**data, SEAL: checksum(data)}).encode()
    except (ValueError, RecursionError):
        return content


@CASES
def test_no_result_is_too_strange_for_a_message(tmp_path: Path, cases: int) -> None:
    plan = make_plan([scripted(1)])
    study = make_study(tmp_path / "study", plan, complete=[1])
    directory = plan.directory(study, plan.slots[0])
    broken = ExperimentDirectory(tmp_path / "broken")
    break_off(broken, scripted(1), "timeout")

    def look_at() -> None:
        explained(directory.result, ConfigError("no"))
        read_failure(broken.error)
        ExperimentResult.from_json(directory.root)

    counts = hold([directory.result, broken.error], look_at, cases, "results")
    assert counts["refused"] > 0.6 * cases


@CASES
def test_no_plan_is_too_strange_for_a_message(tmp_path: Path, cases: int) -> None:
    plan = make_plan([scripted(1), scripted(2, n=3)])
    study = make_study(tmp_path / "study", plan, complete=[1])
    write_plan(study, plan)

    def look_at() -> None:
        explained(study.manifest, ConfigError("no"))
        look(read_plan(StudyDirectory(study.root)).plan, study)

    hold([study.manifest, study.plan], look_at, cases, "plans, one of two")
    study.plan.unlink()
    counts = hold([study.manifest], look_at, cases, "plans, the only one")
    assert counts["refused"] > 0.6 * cases


@CASES
@pytest.mark.parametrize("family", range(len(VARIANTS)))
def test_no_model_is_too_strange_for_a_message(tmp_path: Path, family: int, cases: int) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in files_of_a_model(VARIANTS[family]).items():
        (folder / name).write_bytes(content)
    config = ExperimentConfig(model=str(folder), lora={"adapter_path": str(folder)})

    def look_at() -> None:
        source = sources.resolve(str(folder))
        found = [
            *sources.model_problems(str(folder)),
            *sources.weight_problems(str(folder)),
            *sources.vocabulary_problems(str(folder)),
            *sources.template_problems(str(folder)),
            *problems.kind_problems(config),
            *problems.context_problems(config),
            *problems.room_problems(config, 1e9, "this machine"),
            *problems.adapter_problems(config),
        ]
        if disagreement := quantised.disagreement(quantised.of_model(str(folder), None), "bf16"):
            found.append(disagreement)
        shape = sources.architecture_of(source)
        if shape is not None:
            estimate_memory(config, shape)
        problems.adapter_rank(config)
        identity.of_models(config)
        loadable.tensors(source)
        if found:
            raise LLEMError("\n".join(map(str, found)))

    files = [folder / "config.json", *folder.iterdir()]
    hold(files, look_at, cases // 5, f"models, {VARIANTS[family]}")
