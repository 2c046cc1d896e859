"""A study whose experiments all fail the same way stops; any other one goes on."""

from __future__ import annotations

import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.domain.results import FailedExperiment
from llenergymeasure.exceptions import StudyError
from llenergymeasure.study.session import CircuitBreaker

CONFIG = ExperimentConfig(model="m", backend="scripted")


def failure(message: str = "no such model", phase: str = "load") -> FailedExperiment:
    return FailedExperiment(config=CONFIG, phase=phase, code="backend", message=message)


def test_three_configurations_that_fail_alike_stop_the_study() -> None:
    breaker = CircuitBreaker(configurations=5)
    breaker.failed(0, failure())
    breaker.failed(1, failure())
    with pytest.raises(StudyError, match=r"all 3 experiments failed the same way.*no such model"):
        breaker.failed(2, failure())


def test_figures_in_a_message_do_not_make_it_another_failure() -> None:
    breaker = CircuitBreaker(configurations=3)
    breaker.failed(0, failure("needs 12 GB"))
    breaker.failed(1, failure("needs 14 GB"))
    with pytest.raises(StudyError):
        breaker.failed(2, failure("needs 99 GB"))


def test_one_configuration_that_never_works_does_not_stop_the_others() -> None:
    breaker = CircuitBreaker(configurations=2)
    for _ in range(5):
        breaker.failed(0, failure())
    with pytest.raises(StudyError):
        breaker.failed(1, failure())


def test_a_study_of_one_configuration_stops_after_three() -> None:
    breaker = CircuitBreaker(configurations=1)
    breaker.failed(0, failure())
    breaker.failed(0, failure())
    with pytest.raises(StudyError):
        breaker.failed(0, failure())


@pytest.mark.parametrize("other", [failure("disk full"), failure(phase="measure")])
def test_failing_in_different_ways_does_not_stop_it(other: FailedExperiment) -> None:
    breaker = CircuitBreaker(configurations=3)
    for number in range(6):
        breaker.failed(number % 3, other if number == 1 else failure())


def test_one_success_shows_that_the_study_can_work() -> None:
    breaker = CircuitBreaker(configurations=3)
    breaker.succeeded()
    for number in range(6):
        breaker.failed(number % 3, failure())
