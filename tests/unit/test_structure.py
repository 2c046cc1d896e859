"""How the source is cut: what is held, and that the measure can tell."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts.structure import circles, measure

SHARE = 0.12  # a fifth and more was found to scatter one thought over many places


@pytest.fixture(scope="module")
def structure():
    return measure()


def test_no_modules_import_each_other_in_a_circle(structure) -> None:
    assert structure.circles == ()


def test_few_private_functions_have_but_one_caller(structure) -> None:
    one_use = [f"{body.where} {body.name}" for body in structure.single]
    assert structure.single_share <= SHARE, "inline some of these:\n" + "\n".join(one_use)


def written(folder: Path, **modules: str) -> Path:
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def test_a_circle_is_found_though_its_imports_are_deferred_or_for_types(tmp_path: Path) -> None:
    source = written(
        tmp_path,
        one="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from two import Thing\n",
        two="def f():\n    import three\n",
        three="import one.name\n",
        apart="import one\n",
    )
    assert measure(source).circles == (("one", "three", "two"),)


def test_a_package_and_its_module_are_told_apart() -> None:
    imports = {"a": {"a.b.name"}, "a.b": {"a.c.other"}, "a.c": {"json"}}
    assert circles(imports) == ()


def test_private_functions_are_counted_where_they_are_named_once(tmp_path: Path) -> None:
    source = written(
        tmp_path,
        one="def _once(): pass\ndef _twice(): pass\ndef __dunder__(): pass\n_once()\n_twice()\n",
        two="import one\none._twice\n@property\ndef _decorated(): pass\n_decorated\n",
    )
    found = measure(source)
    assert [body.name for body in found.single] == ["_once"]
    assert len(found.bodies) == 4


def test_a_body_is_measured_without_its_docstring(tmp_path: Path) -> None:
    source = written(tmp_path, one='def f():\n    """Say."""\n    a = 1\n    return (\n a)\n')
    assert [body.lines for body in measure(source).bodies] == [3]
    assert measure(source).lines == {"one": 5}
