"""A GPU that was never calibrated with its driver: bursts before its first warm-up.

They come from a process of their own: the one that measures loads no PyTorch for them and opens no
CUDA context, which an engine that forks could not live with, and what they held is gone with it.
That process is ``python -m llenergymeasure.core.energy.first_sight JOB``.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from llenergymeasure import lifeline
from llenergymeasure.core.energy.calibration import (
    WHERE,
    Device,
    LoadGenerator,
    Script,
    TorchLoad,
    calibrate_with,
    make_script,
)
from llenergymeasure.core.energy.protocol import EnergyBackend
from llenergymeasure.core.energy.stored import (
    FailedCalibration,
    StoredCalibration,
    failed_lately,
    keep,
    keep_failure,
)
from llenergymeasure.domain.samples import Window
from llenergymeasure.exceptions import BackendError
from llenergymeasure.processes import ChildProcess, same_modules

_MODULE = "llenergymeasure.core.energy.first_sight"
START_S = 120.0  # PyTorch is imported, and the first products are waited for
ANSWER_S = 30.0  # beyond the time that work is to take
LOOK_S = 0.1  # at who else computes on a device

MakeLoad = Callable[[str], LoadGenerator]


@runtime_checkable
class Teachable(Protocol):
    """A source that can be told of calibrations while it runs."""

    def uncalibrated(self) -> Sequence[str]:
        """Name the devices whose sensors nothing is known of, by UUID."""
        ...

    def learn(self, calibration: StoredCalibration) -> None:
        """Use what was learned about one device from the next window on."""
        ...


class FirstSight(NamedTuple):
    """What became of the bursts.

    Attributes:
        calibrated: GPUs that are calibrated now.
        notes: What was learned, or why nothing was, a sentence each.
    """

    calibrated: tuple[str, ...]
    notes: tuple[str, ...]

    def instead_of_floor(self, gpus: int) -> str | None:
        """Say what took the place of the thermal floor, if anything did.

        Args:
            gpus: How many GPUs do the work: of several, one rests while another has its bursts.
        """
        if gpus != 1 or not self.calibrated:
            return None
        return f"replaced by bursts that calibrated the sensors of {self.calibrated[0]}"


def calibrate_unknown(  # noqa: PLR0913 - what it works with is given by name
    source: EnergyBackend,
    driver_version: str,
    directory: Path,
    tell: Callable[[str], None],
    *,
    make_load: MakeLoad | None = None,
    make_bursts: Callable[[], Script] = lambda: make_script(random.Random()),
    sleep: Callable[[float], None] = time.sleep,
) -> FirstSight:
    """Calibrate what a running source reads without a calibration, and keep what was learned.

    A GPU that cannot be driven or read so, that others use or that bursts did not calibrate within
    the last day is left uncalibrated; the experiment goes on.

    Args:
        source: Runs already; between two windows.
        driver_version: The driver.
        directory: The user's data directory.
        tell: Takes a line to show before each GPU.
        make_load: Makes what drives a GPU, by UUID; by default a process of its own.
        make_bursts: Draws the bursts for each.
        sleep: Waits, seconds.
    """
    calibrated: list[str] = []
    notes: list[str] = []
    if not isinstance(source, Teachable):
        return FirstSight((), ())
    devices = [Device(uuid, driver_version) for uuid in source.uncalibrated()]
    obstacles = _obstacles(devices, source, directory, sleep)
    for device in devices:
        if device.uuid in obstacles:
            notes.append(f"{device.uuid} is not calibrated: {obstacles[device.uuid]}")
            continue
        script = make_bursts()
        tell(
            f"{device.uuid} was never calibrated with driver {driver_version}: bursts of load for "
            f"{script.seconds:.0f} s, once; --no-calibrate to skip"
        )
        try:
            with closing((make_load or LoadProcess)(device.uuid)) as load:
                learned = calibrate_with(device, source, load, script, sleep)
        except BackendError as error:
            notes.append(f"{device.uuid} is not calibrated: {error.message}")
            failed = FailedCalibration(
                **device._asdict(), reason=error.message, failed_at_s=datetime.now(UTC).timestamp()
            )
            keep_failure(directory, failed)
            continue
        source.learn(learned.stored)
        calibrated.append(device.uuid)
        notes += [*learned.notes, *_kept(directory, learned.stored)]
    return FirstSight(tuple(calibrated), tuple(notes))


def _obstacles(
    devices: Sequence[Device],
    source: EnergyBackend,
    directory: Path,
    sleep: Callable[[float], None],
) -> dict[str, str]:
    """Tell why some devices are not even tried, by UUID."""
    obstacles: dict[str, str] = {}
    for device in devices:
        if failed := failed_lately(directory, *device, now_s=datetime.now(UTC).timestamp()):
            obstacles[device.uuid] = (
                f"{failed.reason} (tried within the last day; llem config --calibrate tries again)"
            )
    if len(obstacles) == len(devices):
        return obstacles
    source.open_window()
    began_ns = time.monotonic_ns()
    sleep(LOOK_S)
    recording = source.close_window(Window(began_ns, time.monotonic_ns()))
    for state in recording.device_state:
        if state.foreign_pids:
            pids = ", ".join(map(str, state.foreign_pids))
            obstacles.setdefault(state.device, f"other processes compute on it ({pids})")
    return obstacles


def _kept(directory: Path, stored: StoredCalibration) -> Sequence[str]:
    try:
        keep(directory, stored)
    except OSError as error:
        return (f"the calibration of {stored.uuid} holds for this experiment only: {error}",)
    return ()


class LoadProcess:
    """Drives one GPU from a process of its own.

    Args:
        uuid: The device.

    Raises:
        BackendError: PyTorch is not installed, or does not see the device, or fails on it.
    """

    def __init__(self, uuid: str) -> None:
        self.lost_s = 0.0
        try:
            self._process = ChildProcess(_MODULE, {"uuid": uuid}, environment=same_modules())
        except OSError as error:
            raise BackendError(f"no process could be started: {error}", where=WHERE) from error
        self._channel = Connection(self._process.end.detach())
        try:
            self._receive(START_S)
        except BaseException:
            self.close()
            raise

    def burst(self, seconds: float) -> Window:
        """Work for about so long."""
        return self._drive("burst", seconds)

    def simmer(self, seconds: float) -> Window:
        """Keep the device awake for about so long."""
        return self._drive("simmer", seconds)

    def close(self) -> None:
        """End the process."""
        with suppress(OSError):
            self._channel.send_bytes(b'["stop", 0]')
        try:
            self._process.close(2.0)
        finally:
            self._channel.close()

    def _drive(self, how: str, seconds: float) -> Window:
        with suppress(OSError):  # a dead process shows in the answer
            self._channel.send_bytes(json.dumps([how, seconds]).encode())
        told = self._receive(seconds + ANSWER_S)
        self.lost_s = told["lost_s"]
        return Window(told["t0_ns"], told["t1_ns"])

    def _receive(self, limit_s: float) -> dict[str, Any]:
        """Wait for an answer.

        Raises:
            BackendError: It says that it failed, ended, or is too slow.
        """
        try:
            if not self._channel.poll(limit_s):
                self._process.kill()
                raise BackendError(f"the load did not answer within {limit_s:g} s", where=WHERE)
            answer: dict[str, Any] = json.loads(self._channel.recv_bytes())
        except (EOFError, OSError):
            said = f"{self._process.last_exit()}\n{self._process.printed()}".strip()
            raise BackendError(f"the load {said}", where=WHERE) from None
        if "failed" in answer:
            raise BackendError(answer["failed"], where=WHERE)
        return answer


def main(arguments: list[str]) -> int:
    """Drive one GPU until told to stop."""
    job = json.loads(arguments[0])
    line = lifeline.answer(job["parent"], job["fd"])

    def reply(**answer: Any) -> None:
        line.channel.send_bytes(json.dumps(answer).encode())

    try:
        load = TorchLoad(job["uuid"])
    except (BackendError, RuntimeError) as error:  # PyTorch's own, as of memory, is a RuntimeError
        reply(failed=str(error))
        return 1
    reply()
    with closing(load):
        while (command := json.loads(line.inbox.get()))[0] != "stop":
            how, seconds = command
            window = load.burst(seconds) if how == "burst" else load.simmer(seconds)
            reply(t0_ns=window.t0_ns, t1_ns=window.t1_ns, lost_s=load.lost_s)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
