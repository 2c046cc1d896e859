"""Every finding that bears on how far a result can be trusted, by its stable code."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

Level = Literal["invalid", "caution", "info"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""Worst first."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a code means.

    Attributes:
        level: How much it weighs.
        meaning: Why it matters.
        remedy: What to do about it.
        shows: What the readings of a device show, where a source gives the code as a flag.
    """

    level: Level
    meaning: str
    remedy: str
    shows: str = ""


_invalid = partial(Finding, "invalid")
_caution = partial(Finding, "caution")
_info = partial(Finding, "info")

FINDINGS: dict[str, Finding] = {
    "nothing_completed": _invalid(
        meaning="No request ended well, so there is nothing to relate time or energy to.",
        remedy="read the errors in requests.parquet and log.txt",
    ),
    "energy_unmeasurable": _invalid(
        meaning="An energy figure was asked for, and no source could give one.",
        remedy="read the notes of the energy source; llem config lists the sources of this "
        "machine, and energy_backend: none asks for no energy",
    ),
    "no_energy_source": _caution(
        meaning="No source on this machine could tell energy, so there is no energy figure; times "
        "are as good as ever.",
        remedy="llem config lists the sources and what each of them needs; energy_backend: none "
        "asks for no energy",
    ),
    "hardware_thermal_slowdown": _invalid(
        meaning="The hardware slowed the device down because it was too hot; times and energy are "
        "those of an overheated device.",
        remedy="improve cooling or wait for the device to cool down, and repeat",
    ),
    "power_brake": _invalid(
        meaning="The device was slowed down from outside, by its power supply; times and energy "
        "are not its own.",
        remedy="check the power supply of the machine, and repeat",
    ),
    "hardware_slowdown": _invalid(
        meaning="The hardware slowed the device down for more than a moment.",
        remedy="read the clock-event reasons with nvidia-smi -q -d PERFORMANCE, mend their cause "
        "and repeat",
    ),
    "foreign_process": _invalid(
        meaning="Another process computed on the device, so its energy and its delays are in the "
        "figures.",
        remedy="end the other processes (nvidia-smi lists them), or choose a free device with "
        "CUDA_VISIBLE_DEVICES",
    ),
    "counter_reset": _invalid(
        meaning="The energy counter started again inside the window, so what it counted before is "
        "lost.",
        remedy="keep the driver loaded with nvidia-smi -pm 1, and repeat",
        shows="the energy counter started again inside the window",
    ),
    "stalled": _invalid(
        meaning="The work stood still for more than 5 % of the window (stopped, frozen, without "
        "CPU or memory, or while a kernel was compiled), or the machine slept. Rates and energy "
        "are not those of the work.",
        remedy="let nothing suspend the machine or stop the process (a laptop's lid, kill -STOP, a "
        "frozen container, an overcommitted host), and repeat; where kernels were compiled, raise "
        "warmup.n_warmup",
    ),
    "failed_requests": _caution(
        meaning="Failed requests took time and energy, and are in no average.",
        remedy="read the errors in requests.parquet and log.txt, mend their cause and repeat",
    ),
    "cpu_shared": _caution(
        meaning="Other work on the machine had more than 5 % of its CPU time, so it delayed the "
        "experiment, and its energy is in a figure for the whole CPU.",
        remedy="end other programs (top lists them) and repeat",
    ),
    "device_lock_lost": _caution(
        meaning="The file of the lock on a device was taken away while it was measured, so another "
        "experiment may have had the device at the same time.",
        remedy="find out what removes files there, such as a cleaner of old ones, or let "
        "LLEM_LOCK_DIR name another folder, and repeat",
    ),
    "stalled_briefly": _caution(
        meaning="The work stood still for 1 s or more at a time, but for less than 5 % of the "
        "window: the slowest latencies are those of the standstill, and rates a little low.",
        remedy="let nothing stop the process, and repeat; where kernels were compiled, raise "
        "warmup.n_warmup",
    ),
    "cpu_throttled": _caution(
        meaning="A quota on CPU time, of a container or a job, stopped its processes again and "
        "again, so times are those of the quota and not of the CPU.",
        remedy="set pytorch.num_threads to the quota or less, or allow more CPU time (docker run "
        "--cpus), and repeat",
    ),
    "window_short": _caution(
        meaning="In a short window, edges and single stalls weigh heavily.",
        remedy="set window.min_duration_seconds: 10 or more, or raise n",
    ),
    "modelled_energy": _caution(
        meaning="The energy comes from a model of the hardware, not from a meter; it has no "
        "interval.",
        remedy="compare only with other modelled figures; llem config lists measured sources",
    ),
    "software_thermal_slowdown": _caution(
        meaning="The driver slowed the device down because of its heat.",
        remedy="improve cooling, or wait longer between experiments",
    ),
    "power_limit_lowered": _caution(
        meaning="The power limit is below the device's default, so figures are not those of the "
        "device as sold.",
        remedy="compare only with figures at the same limit; nvidia-smi -q -d POWER shows both "
        "limits",
    ),
    "processes_unknown": _caution(
        meaning="Nobody could see whether other processes computed on the device.",
        remedy="run where NVML can list processes: outside a container, or in one that shares the "
        "host's process ids",
    ),
    "start_temperature": _caution(
        meaning="The device started more than 3 °C from where it should; leakage current grows "
        "with heat.",
        remedy="wait longer between experiments, or raise warmup.thermal_floor_seconds",
    ),
    "power_drift": _caution(
        meaning="Power changed by more than 1 %, and by more than its interval, between halves of "
        "the window that did the same work.",
        remedy="raise warmup.thermal_floor_seconds, and window.min_duration_seconds",
    ),
    "clock_drift": _caution(
        meaning="The clock changed by more than 1 % between halves of the window that did the "
        "same work.",
        remedy="raise warmup.thermal_floor_seconds; a lower power limit or locked clocks keep it "
        "steady",
    ),
    "closure_failed": _caution(
        meaning="Halves of the window that did the same work took different energy, by more than "
        "their intervals and 1 % allow.",
        remedy="repeat with a longer window.min_duration_seconds; read power in timeseries.parquet",
    ),
    "persistence_off": _caution(
        meaning="Without persistence mode the driver may unload between uses, which resets "
        "counters and clocks.",
        remedy="sudo nvidia-smi -pm 1",
    ),
    "counter_power_disagree": _caution(
        meaning="Energy by the counter and energy by integrated power differ by more than 5 %, and "
        "by more than their intervals allow; one of the two sensors is wrong.",
        remedy="compare both in energy.components, and repeat; an external meter tells which is "
        "right",
        shows="counter and integrated power differ by more than 5 %, and by more than their "
        "intervals",
    ),
    "counter_unusable": _caution(
        meaning="The device has an energy counter that did not move, so power readings had to do.",
        remedy="update the driver; a longer window narrows the interval",
        shows="the energy counter did not move, so power readings were integrated",
    ),
    "sensor_uncalibrated": _caution(
        meaning="Lag and tail of the sensor, and whether it counts every moment, are not known; "
        "the interval allows for the usual, which makes it wide.",
        remedy="llem config --calibrate",
        shows="the sensor is not calibrated: nothing is known of its lag and of how it looks",
    ),
    "aliasing_risk": _caution(
        meaning="A sensor that looks at a share of each tick sees only one phase of load that "
        "repeats in step with it; the interval allows for half the power.",
        remedy="change the batch size or max_new_tokens so that steps and ticks fall out of step",
        shows="the load repeats in step with the sensor's ticks",
    ),
    "integrated_power": _caution(
        meaning="The device has no energy counter; samples of power miss what happens between "
        "them.",
        remedy="a longer window narrows the interval",
        shows="there is no energy counter; power readings were integrated",
    ),
    "one_second_average": _caution(
        meaning="The device tells only power averaged over a second, so the edges of the window "
        "are blurred.",
        remedy="set window.min_duration_seconds: 30 or more, or update the driver",
        shows="there are only power readings that are means over a second",
    ),
    "no_guard": _caution(
        meaning="Readings do not reach far enough beyond the window to tell its edges.",
        remedy="repeat; on a busy machine leave a CPU to the sampling process",
        shows="too little was read just before or after the window",
    ),
    "unknown_tail": _caution(
        meaning="After the work the device went on drawing power in a way that its calibration "
        "never saw; that is not the window's energy, and its hidden part is taken off with half "
        "of it as doubt.",
        remedy="llem config --calibrate again; a longer window makes the doubt smaller",
        shows="power died away after the window as its calibration never saw it",
    ),
    "busy_before": _caution(
        meaning="Power stood out of rest shortly before the window, so something else worked on "
        "the device; what of it may reach up to the window is in the interval.",
        remedy="end other programs that use the device, and repeat",
        shows="power stood out of rest before the window",
    ),
    "busy_after": _caution(
        meaning="After the window the device rested and then drew power again, so something else "
        "worked on it; rest power is told without that.",
        remedy="end other programs that use the device, and repeat",
        shows="power stood out of rest some time after the window",
    ),
    "sampling_gap": _caution(
        meaning="There is a gap in the readings; the interval allows for what it may hide.",
        remedy="repeat; on a busy machine leave a CPU to the sampling process",
        shows="nothing was read for several ticks",
    ),
    "stalled_reads": _caution(
        meaning="The sensor took unusually long to answer; the interval allows for it.",
        remedy="repeat; look for other programs that poll the device",
        shows="a read of the sensor took longer than 0.1 s",
    ),
    "baseline_unsteady": _caution(
        meaning="Idle power drifted while it was measured, so energy above idle is less certain "
        "than its interval says.",
        remedy="wait until the device has cooled down, or raise baseline.duration_seconds",
    ),
    "prefix_cache_hits": _caution(
        meaning="Prompts were found in the prefix cache, so less was computed than the prompts "
        "ask for.",
        remedy="turn prefix caching off, or empty the cache between passes",
    ),
    "samples_changed": _caution(
        meaning="Raw samples that the result was made from are missing, or were changed since; its "
        "figures are as they were written, and nobody can derive them anew.",
        remedy="put the files back beside result.json, from a copy",
    ),
    "random_weights": _caution(
        meaning="The values of the weights shift power draw by several per cent.",
        remedy="measure the trained model before publishing a figure",
    ),
    "prompts_truncated": _info(
        meaning="Prompts were cut, so the workload is shorter than the dataset's.",
        remedy="raise max_input_tokens, or set it to null, to keep prompts whole",
    ),
    "power_limit_reached": _info(
        meaning="The device ran at its default power limit, as hot loads do.",
        remedy="nothing; figures are those of the device at its default limit",
    ),
    "part_time": _info(
        meaning="The sensor looks at a share of each tick only; the interval allows for what it "
        "does not see.",
        remedy="nothing; a longer window narrows the interval",
        shows="the sensor looks at a share of each tick only",
    ),
    "counter_reset_outside": _info(
        meaning="The energy counter started again next to the window, not inside it.",
        remedy="keep the driver loaded with nvidia-smi -pm 1",
        shows="the energy counter started again next to the window",
    ),
    "drift_not_assessable": _info(
        meaning="Whether warm-up was long enough and the device steady can only be judged on "
        "several batches or identical passes.",
        remedy="set window.min_duration_seconds so that the prompts are passed over twice",
    ),
}
