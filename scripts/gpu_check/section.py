"""The process of one section: run it, and leave its outcome as JSON."""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from pathlib import Path

from gpu_check.plan import Outcome, Plan, plan_from


def main(function: str, plan: str, argument: str, answer: str) -> None:
    """Run ``"module:function"`` with a plan, and with an argument where there is one."""
    given = plan_from(json.loads(plan), "the plan")
    outcome = _run(function, given, json.loads(argument))
    Path(answer).write_text(json.dumps(outcome), encoding="utf-8")


def _run(function: str, plan: Plan, argument: int | None) -> Outcome:
    module, _, name = function.partition(":")
    more = () if argument is None else (argument,)
    try:
        outcome: Outcome = getattr(importlib.import_module(f"gpu_check.{module}"), name)(
            plan, *more
        )
    except Exception as error:  # noqa: BLE001 - whatever breaks a section is its outcome
        traceback.print_exc()
        return Outcome("failed", f"{type(error).__name__}: {error}", {})
    return outcome


if __name__ == "__main__":
    main(*sys.argv[1:])
