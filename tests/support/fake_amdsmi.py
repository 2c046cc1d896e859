"""Stands for the package ``amdsmi`` where no AMD GPU is: two GPUs with a power that is known.

Functions and what they return are those of amdsmi 7.0 (``amdsmi_interface.py``), as far as Zeus and
the reader call them. HIP counts the GPUs the other way round than amdsmi does.
"""

import time
from enum import IntEnum

POWER_W = (300, 100)
RESOLUTION_UJ = 15.259  # as MI300X has it
EPOCH_S = 1.0


class AmdSmiException(Exception):  # noqa: N818 - the name it has
    """Base of what amdsmi raises."""


class AmdSmiLibraryException(AmdSmiException):
    """What the library answers with an error code."""


class AmdSmiInitFlags(IntEnum):
    INIT_AMD_GPUS = 2


def amdsmi_init(flag=AmdSmiInitFlags.INIT_AMD_GPUS):
    pass


def amdsmi_shut_down():
    pass


def amdsmi_get_processor_handles():
    return [0, 1]


def amdsmi_get_gpu_enumeration_info(processor_handle):
    return {"hip_id": 1 - processor_handle, "hip_uuid": f"GPU-{_serial(processor_handle)}"}


def amdsmi_get_gpu_asic_info(processor_handle):
    serial = f"0x{_serial(processor_handle).upper()}"
    return {"market_name": "AMD Instinct MI300X", "asic_serial": serial}


def amdsmi_get_gpu_device_uuid(processor_handle):
    return f"{processor_handle}0ff74a1-0000-1000-80b0-123456789abc"


def amdsmi_get_power_info(processor_handle):
    return {"current_socket_power": POWER_W[processor_handle], "average_socket_power": "N/A"}


def amdsmi_get_energy_count(processor_handle):
    drawn_uj = (time.monotonic() - EPOCH_S) * POWER_W[processor_handle] * 1e6
    return {
        "energy_accumulator": int(drawn_uj / RESOLUTION_UJ),
        "counter_resolution": RESOLUTION_UJ,
        "timestamp": time.monotonic_ns(),
    }


def _serial(processor_handle):
    return f"{processor_handle}8e9fa5d9c6a1b2c"
