# The verbs of this project; `make help` lists them. CI runs the same ones.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

# $(call pip,VENV): install into a virtual environment, at the versions the tests run against.
pip     = $(1)/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
STAMP   = $(VENV)/.installed
DEMO    = $(VENV)-demo
PEER    = $(VENV)-peer

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint typecheck unit test-docker docs bench bench-energy bench-fidelity bench-sampler bench-startup gpu-check clean

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

test-docker: setup ## the docker runner on a real Docker engine, started here if root (Debian, Ubuntu)
	scripts/test_docker.sh $(BIN)/python

docs: setup ## write the generated pages of docs/
	$(BIN)/python scripts/make_reference.py

bench: bench-startup bench-fidelity bench-sampler bench-energy ## every benchmark, on a quiet machine

bench-fidelity: setup $(PEER)/.installed ## what llem reports against a bare generate loop and optimum-benchmark
	$(BIN)/python benchmarks/fidelity_overhead.py
	-$(BIN)/python benchmarks/fidelity_paired.py
	$(BIN)/python benchmarks/fidelity.py --peer-python $(PEER)/bin/python

bench-energy: setup ## how near joules come to the truth, on a virtual clock (about 10 minutes)
	PYTHONPATH=. $(BIN)/python benchmarks/energy_accuracy.py --held-out

bench-sampler: setup ## what the NVML sampler takes of a core, on simulated devices
	PYTHONPATH=. $(BIN)/python benchmarks/sampler_cost.py

bench-startup: ## time to --help, --version and import
	$(PYTHON) benchmarks/startup.py

gpu-check: ## measure what only an NVIDIA GPU can show (WHEELS=DIR where there is no network)
	PYTHON=$(PYTHON) scripts/gpu_check.sh $(if $(WHEELS),--wheels $(WHEELS))

$(PEER)/.installed: benchmarks/peer-requirements.txt
	$(PYTHON) -m venv $(PEER)
	$(PEER)/bin/python -m pip --disable-pip-version-check install --quiet --requirement $<
	@touch $@

clean: ## remove virtual environments and caches
	rm -rf $(VENV) $(VENV)-* .mypy_cache .pytest_cache .ruff_cache .coverage* build dist
