"""What holds for unit tests: a machine that is busy with other things fails none of them."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("patient", deadline=None, max_examples=25)
settings.register_profile("exhaustive", settings.get_profile("patient"), max_examples=200)
settings.load_profile("patient")
