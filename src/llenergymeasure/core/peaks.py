"""Peak rates of known devices, dense (without structured sparsity).

Sources: NVIDIA's data sheets and architecture white papers.
A100 https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf
H100 https://resources.nvidia.com/en-us-tensor-core/nvidia-tensor-core-gpu-datasheet
H200 https://nvdam.widen.net/s/nb5zzzsjdf/hpc-datasheet-sc23-h200-datasheet-3002446
L4 https://www.nvidia.com/en-us/data-center/l4/
RTX 4090 https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from llenergymeasure.config.names import Precision


@dataclass(frozen=True, slots=True)
class DevicePeak:
    """Peak rates of one kind of device.

    Attributes:
        name: What it is called here.
        pattern: Regular expression for the whole of the name that NVML reports.
        tflops: 10^12 operations a second by compute type; fp32 is without tensor cores, which
            is what PyTorch does unless told otherwise.
        bandwidth_gb_s: Memory bandwidth, 10^9 bytes a second.
    """

    name: str
    pattern: str
    tflops: dict[str, float]
    bandwidth_gb_s: float

    def compute_tflops(self, precision: Precision) -> float:
        """Give the peak of the type that a precision computes in, TFLOP/s.

        fp16 runs at the rate of bf16. int4 quantises weights only and computes in bf16; so does
        fp8 where the device has no fp8 units, as on Ampere
        (https://docs.vllm.ai/en/latest/features/quantization/fp8/).
        """
        return self.tflops.get(precision, self.tflops["bf16"])


_A100 = {"bf16": 312.0, "int8": 624.0, "fp32": 19.5}
_H100_SXM = {"bf16": 989.0, "int8": 1979.0, "fp8": 1979.0, "fp32": 67.0}

DEVICES: tuple[DevicePeak, ...] = (
    DevicePeak("A100 40GB", r"A100-(SXM4?|PCIE)-40GB", _A100, 1555.0),
    DevicePeak("A100 80GB PCIe", r"A100 80GB PCIe|A100-PCIE-80GB", _A100, 1935.0),
    DevicePeak("A100 80GB SXM", r"A100-SXM4?-80GB", _A100, 2039.0),
    DevicePeak("H100 SXM", r"H100( 80GB HBM3|-SXM5-80GB)", _H100_SXM, 3350.0),
    DevicePeak(
        "H100 PCIe",
        r"H100 PCIe|H100-PCIE-80GB",
        {"bf16": 756.0, "int8": 1513.0, "fp8": 1513.0, "fp32": 51.0},
        2000.0,
    ),
    DevicePeak("H200", r"H200", _H100_SXM, 4800.0),
    DevicePeak("L4", r"L4", {"bf16": 121.0, "int8": 242.0, "fp8": 242.0, "fp32": 30.3}, 300.0),
    DevicePeak(
        "RTX 4090",
        r"(GeForce )?RTX 4090",
        # fp8 with accumulation in fp32; int8 runs at twice that.
        {"bf16": 165.0, "int8": 660.0, "fp8": 330.0, "fp32": 82.6},
        1008.0,
    ),
)


def peak_of(device_name: str | None) -> DevicePeak | None:
    """Find the peaks of a device by the name NVML reports; ``None`` for any other device.

    The whole name must match: an L40 is no L4, and a MIG slice is no whole board.
    """
    if device_name is None:
        return None
    bare = device_name.strip().removeprefix("NVIDIA ")
    matches = (peak for peak in DEVICES if re.fullmatch(peak.pattern, bare, re.IGNORECASE))
    return next(matches, None)
