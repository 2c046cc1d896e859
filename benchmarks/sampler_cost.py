"""What the NVML sampler costs: CPU time of its process, at default rates, on simulated devices.

Run: ``PYTHONPATH=. python benchmarks/sampler_cost.py [--seconds 10] [--windows 3]``. The target is
1 % of a core. Calls into a real driver take longer than into the simulated one: the share there is
in ``energy.sampling`` of a result.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

from llenergymeasure.core.energy.nvml import NVMLSource
from llenergymeasure.core.energy.protocol import SamplingRates
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.samples import Window
from tests.support.simulated_device.device import Board, SimulatedNode
from tests.support.simulated_device.profiles import H100

RESULTS = Path(__file__).parent / "results" / "sampler_cost.json"
TARGET_SHARE = 0.01


def shares(devices: int, windows: int, seconds: float) -> list[float]:
    """Measure the share of a core, window by window."""
    with tempfile.TemporaryDirectory() as folder:
        node = SimulatedNode(Path(folder), [Board(H100)] * devices)
        os.environ.update(node.environment)
        uuids = tuple(node.uuid(device) for device in range(devices))
        source = NVMLSource(DeviceTarget("gpu", uuids), SamplingRates())
        source.start()
        found = [_share(source, seconds) for _ in range(windows)]
        source.stop()
    return found


def _share(source: NVMLSource, seconds: float) -> float:
    source.open_window()
    t0_ns = time.monotonic_ns()
    time.sleep(seconds)
    recording = source.close_window(Window(t0_ns, time.monotonic_ns()))
    assert recording.cost is not None
    first, last = recording.readings[0].before_ns, recording.readings[-1].after_ns
    return recording.cost.cpu_seconds / ((last - first) / 1e9)


def main() -> int:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--windows", type=int, default=3)
    given = parser.parse_args()
    found = {n: shares(n, given.windows, given.seconds) for n in (1, 4, 8)}
    for devices, each in found.items():
        said = ", ".join(f"{share:.2%}" for share in each)
        print(f"{devices} device(s): {said} of a core (target {TARGET_SHARE:.0%})")
    record = {
        "rates": {"counter_poll_ms": 5.0, "power_poll_ms": 20.0},
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load_1min": os.getloadavg()[0],
        "share_of_a_core": found,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
