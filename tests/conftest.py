"""What holds for every test: nothing is fetched, and no credential of the developer takes part."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile

import pytest

# Before huggingface_hub is imported, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"
for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT"):
    os.environ.pop(variable, None)
# Started in the background by a script, this process and all that it starts would ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Measurements of the tests wait neither for those of this machine nor for those of another run.
if "LLEM_LOCK_DIR" not in os.environ:
    os.environ["LLEM_LOCK_DIR"] = tempfile.mkdtemp(prefix="llem-test-locks-")
    atexit.register(shutil.rmtree, os.environ["LLEM_LOCK_DIR"], ignore_errors=True)


@pytest.fixture
def hub_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test speak to a Hub, on a loopback address of its own, as a user's process would."""
    # This first: it imports the constants, which are to be put back to what holds for every test.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE")
