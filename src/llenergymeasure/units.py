"""Factors between units: divide to go to the larger unit, multiply to come back."""

from __future__ import annotations

MIB = 1 << 20
"""Bytes in a mebibyte, the unit of every ``_mb``."""

NS_PER_MS = 1e6
NS_PER_S = 1e9

MJ = 1e-3
"""Joules in a millijoule, the unit of NVML's and Zeus's counters."""

MW_PER_W = 1e3
JOULES_PER_KWH = 3.6e6
