"""Which GPUs a process with this environment may use, as NVML names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

BUS_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""Variables under which CUDA counts devices as NVML does; without, the fastest comes first."""


def visible_uuids(shown: Sequence[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Tell which devices CUDA would see (CUDA C++ Programming Guide, "CUDA Environment Variables").

    ``CUDA_VISIBLE_DEVICES`` counts up to its first entry that names no device. Its numbers are
    NVML's only where CUDA sorts devices by bus as well.

    Args:
        shown: The devices that NVML shows, in its order.
        environ: Environment variables.

    Raises:
        LookupError: There is none, or it can't be told which ones.
    """
    named = environ.get("CUDA_VISIBLE_DEVICES")
    found = list(shown) if named is None else []
    for entry in (part.strip() for part in (named or "").split(",")):
        if entry.isdecimal() and int(entry) < len(shown):
            meant = [shown[int(entry)]]
        else:
            meant = [uuid for uuid in shown if entry.startswith("GPU-") and uuid.startswith(entry)]
        if len(meant) != 1:
            break
        found += meant
    if not found:
        hidden = f"CUDA_VISIBLE_DEVICES={named} hides every GPU" if shown else "NVML shows no GPU"
        raise LookupError(hidden)
    numbered = named is not None and "GPU-" not in named
    if numbered and not _is_by_bus(environ) and set(found) != set(shown):
        raise LookupError(
            f"CUDA_VISIBLE_DEVICES={named} counts GPUs in CUDA's order, which is not NVML's; "
            "set CUDA_DEVICE_ORDER=PCI_BUS_ID or name GPUs by UUID"
        )
    return tuple(found)


def counted_uuids(shown: Sequence[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Tell which devices an engine counts, in its order, once it is started in ``BUS_ORDER``.

    Args:
        shown: The devices that NVML shows, in its order.
        environ: Environment variables of the user.

    Raises:
        LookupError: There is none, or the user wants another order, which NVML does not tell.
    """
    found = visible_uuids(shown, environ)
    order, named = environ.get("CUDA_DEVICE_ORDER"), environ.get("CUDA_VISIBLE_DEVICES", "")
    if order and not _is_by_bus(environ) and len(shown) > 1 and "GPU-" not in named:
        raise LookupError(
            f"CUDA_DEVICE_ORDER={order} is not NVML's order of GPUs; unset it, or name GPUs by UUID"
            " in CUDA_VISIBLE_DEVICES"
        )
    return found


def _is_by_bus(environ: Mapping[str, str]) -> bool:
    return BUS_ORDER.items() <= environ.items()
