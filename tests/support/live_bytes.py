"""Bytes of tensors that are alive, watched while a model generates."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_COMPOSITE = "CompositeImplicitAutograd"


class LiveBytes(TorchDispatchMode):
    """Counts the storage of every tensor that an operation makes, until it is gone.

    What an operation takes and gives back inside itself is not seen.

    Args:
        model: Its own tensors are not counted.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        there = (*model.parameters(), *model.buffers())
        self._known = {tensor.untyped_storage()._cdata for tensor in there}
        self._live: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._now = self.peak = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSITE):
            parts = func.decompose(*args, **(kwargs or {}))
            if parts is not NotImplemented:
                return parts
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or key in self._live:
            return

        def gone(_: object) -> None:
            if self._live.pop(key, None) is not None:
                self._now -= size

        self._live[key] = (weakref.ref(storage, gone), size)
        self._now += size
        self.peak = max(self.peak, self._now)
