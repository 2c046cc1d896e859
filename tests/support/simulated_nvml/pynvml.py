"""Three GPUs as nvidia-ml-py shows them: two with a steady load, one whose meters do not answer.

Put this directory on the path in place of nvidia-ml-py. Only what CodeCarbon 3 calls is here.
"""

from __future__ import annotations

import time
from collections import namedtuple

WATTS = {"GPU-aaaa": 100.0, "GPU-bbbb": 50.0, "GPU-dead": None}
UUIDS = list(WATTS)
NVML_TEMPERATURE_GPU = 0

Memory = namedtuple("Memory", "total free used")
Utilization = namedtuple("Utilization", "gpu memory")


class NVMLError(Exception):
    pass


class NVMLError_NotSupported(NVMLError):  # noqa: N801, N818 - the library's own name
    pass


def nvmlInit():  # noqa: N802
    pass


def nvmlShutdown():  # noqa: N802
    pass


def nvmlDeviceGetCount():  # noqa: N802
    return len(UUIDS)


def nvmlDeviceGetHandleByIndex(index):  # noqa: N802
    return UUIDS[index]


def nvmlDeviceGetUUID(handle):  # noqa: N802
    return handle


def nvmlDeviceGetName(handle):  # noqa: N802
    return "Simulated GPU"


def nvmlDeviceGetTotalEnergyConsumption(handle):  # noqa: N802
    return int(_watts(handle) * time.monotonic() * 1000)


def nvmlDeviceGetPowerUsage(handle):  # noqa: N802
    return int(_watts(handle) * 1000)


def nvmlDeviceGetEnforcedPowerLimit(handle):  # noqa: N802
    return 400_000


def nvmlDeviceGetMemoryInfo(handle):  # noqa: N802
    return Memory(80 * 2**30, 80 * 2**30, 0)


def nvmlDeviceGetUtilizationRates(handle):  # noqa: N802
    return Utilization(50, 10)


def nvmlDeviceGetTemperature(handle, sensor):  # noqa: N802
    return 40


def nvmlDeviceGetComputeMode(handle):  # noqa: N802
    return 0


def nvmlDeviceGetComputeRunningProcesses(handle):  # noqa: N802
    return []


def nvmlDeviceGetGraphicsRunningProcesses(handle):  # noqa: N802
    return []


def _watts(handle):
    if WATTS[handle] is None:
        raise NVMLError_NotSupported("Not Supported")
    return WATTS[handle]
