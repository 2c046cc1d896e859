"""The scripted backend, which keeps to a script of latencies: what it is."""

from llenergymeasure.config.backend_facts import ANSWERS, SAMPLING, BackendFacts
from llenergymeasure.config.names import PRECISIONS

FACTS = BackendFacts(
    name="scripted",
    implementation="llenergymeasure.core.backends.scripted.engine:ScriptedBackend",
    section="llenergymeasure.config.backend_configs:ScriptedConfig",
    # It computes nothing, so every name is as good as another, and so is every way of sampling.
    precisions=PRECISIONS,
    decoding=("greedy", "sampling"),
    honours=SAMPLING | ANSWERS,
    runs_a_model=False,
)
