"""A backend of another package, as an installer would leave it on ``sys.path``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llenergymeasure.config.registry import plugin_backends

_MODULE = """
from llenergymeasure.config.base import ConfigModel
from llenergymeasure.config.backend_facts import BackendFacts


class EchoConfig(ConfigModel):
    speed: int | None = None


ENTRY = BackendFacts(
    name="echo-engine",
    implementation="llenergymeasure.core.backends.scripted.engine:ScriptedBackend",
    section="echo_plugin:EchoConfig",
    precisions=("bf16",),
    decoding=("greedy",),
)
NOT_AN_ENTRY = "a string"
"""


@contextmanager
def installed_plugin(
    folder: Path, target: str = "echo_plugin:ENTRY", name: str = "echo-engine"
) -> Iterator[None]:
    """Install a backend, by default ``echo-engine``, for as long as the block lasts."""
    (folder / "echo_plugin.py").write_text(_MODULE)
    metadata = folder / "echo_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: echo-plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[llenergymeasure.backends]\n{name} = {target}\n")
    sys.path.insert(0, str(folder))
    plugin_backends.cache_clear()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("echo_plugin", None)
        plugin_backends.cache_clear()
