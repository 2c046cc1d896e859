"""Invented log files with a fault and its consequences."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Service:
    """Messages of one kind of program: everyday ones, and the course of one fault."""

    normal: tuple[str, ...]
    fault: tuple[str, ...]


SERVICES = (
    Service(
        (
            "INFO backup: copied #1 files to volume #s in #2 s",
            "INFO backup: verified #1 checksums, none differ",
            "INFO backup: snapshot #1 created, size #2 GB",
            "DEBUG backup: skipped #1 unchanged folders",
            "INFO scheduler: next run in #2 minutes",
        ),
        (
            "WARN backup: volume #s has only #2 GB left",
            "WARN backup: write took #1 ms, expected less than 200 ms",
            "ERROR backup: could not write snapshot #1: no space left on device",
            "ERROR scheduler: job nightly-#2 ended with status 28",
            "INFO backup: removed #2 old snapshots, freed #1 GB",
            "INFO scheduler: job nightly-#2 started again",
        ),
    ),
    Service(
        (
            "INFO web: GET /timetable/line-#2 200 in #1 ms",
            "INFO web: GET /stations/#1 200 in #2 ms",
            "INFO web: POST /feedback 201 in #1 ms",
            "DEBUG cache: hit for stations/#1, age #2 s",
            "DEBUG cache: stored timetable/line-#2, #1 bytes",
        ),
        (
            "WARN database: #2 of 100 connections in use",
            "WARN database: query on table departures took #1 ms",
            "ERROR web: GET /timetable/line-#2 504 after 30000 ms",
            "ERROR database: connection pool exhausted, #2 requests waiting",
            "WARN web: circuit breaker opened for #2 s",
            "INFO database: restarted, #2 connections ready",
        ),
    ),
    Service(
        (
            "INFO station-#s: temperature #2.4 C, humidity #2 %",
            "INFO station-#s: wind #2 km/h from the west",
            "DEBUG radio: packet #1 received, signal -#2 dBm",
            "INFO archive: #1 readings written",
            "DEBUG power: battery #2 %, panel #1 mA",
        ),
        (
            "WARN power: battery of station-#s below #2 %",
            "WARN radio: packet #1 lost, retry in #2 s",
            "ERROR station-#s: reading 850.0 C rejected, out of range",
            "ERROR radio: no contact with station-#s after #2 attempts",
            "INFO archive: gap of #2 seconds marked for station-#s",
            "INFO radio: station-#s is back, clock corrected by #2 s",
        ),
    ),
    Service(
        (
            "INFO queue: job #1 sent to printer-#s, #2 pages",
            "INFO printer-#s: job #1 finished in #2 s",
            "DEBUG queue: #2 jobs waiting",
            "INFO printer-#s: cover sheet printed for job #1",
            "DEBUG queue: job #1 held until confirmed by its owner",
        ),
        (
            "WARN printer-#s: tray 2 is almost empty",
            "WARN queue: job #1 waits for paper size A3",
            "ERROR printer-#s: paper jam behind door B",
            "ERROR queue: printer-#s does not answer, #2 jobs on hold",
            "INFO queue: #2 jobs moved to another printer",
            "INFO printer-#s: door closed, warming up for #2 s",
        ),
    ),
)
TASKS = (
    "Explain what went wrong in the following log.",
    "What is the most likely cause of the errors below?",
    "Please summarise this log for a colleague who is not a programmer.",
    "Find the first sign of trouble in the log below and say why you chose it.",
    "Our on-call person got this log in the night. What should be checked first?",
    "How long did the fault in the following log last, and how did it end?",
    "Group the messages below by component and count the warnings of each.",
    "Suggest one alert that would have told us about this problem earlier.",
    "Write an incident report of about ten lines from the log below.",
    "Which of these lines can be ignored, and which ones matter?",
)


class LogFile:
    """An endless log that runs into trouble after a while."""

    def __init__(self, rng: random.Random, expected_lines: int) -> None:
        """Choose a service, a starting time and the place of the fault."""
        self._rng = rng
        self._service = rng.choice(SERVICES)
        self._unit = rng.choice("ABCDEFG")
        self._second = rng.randint(0, 70_000)
        self._date = f"202{rng.randint(2, 4)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
        self._fault_start = max(1, expected_lines // 2 - len(self._service.fault) // 2)
        self._written = 0

    def next_line(self) -> str:
        """Return the next line of the log."""
        self._second += self._rng.randint(1, 95)
        step = self._written - self._fault_start
        self._written += 1
        fault = self._service.fault
        message = fault[step] if 0 <= step < len(fault) else self._rng.choice(self._service.normal)
        return f"{self._date} {self._clock()} {self._fill(message)}"

    def _clock(self) -> str:
        minutes, seconds = divmod(self._second, 60)
        return f"{minutes // 60 % 24:02d}:{minutes % 60:02d}:{seconds:02d}"

    def _fill(self, message: str) -> str:
        while "#1" in message:
            message = message.replace("#1", str(self._rng.randint(120, 9800)), 1)
        while "#2" in message:
            message = message.replace("#2", str(self._rng.randint(11, 97)), 1)
        return message.replace("#s", self._unit)
