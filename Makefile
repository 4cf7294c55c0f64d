# Two commands do everything on a fresh machine: make demo, make test.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && { echo $$p; break; }; done)
UV := $(shell command -v uv || echo .cache/uv/bin/uv)
BIN := .venv/bin
PYTEST := $(BIN)/pytest

.PHONY: help setup demo up down check test test-fleets test-clusters lint types layers unit integration chaos soak bench protos crds docs tools models lock clean

help: ## Show this list
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: .venv/.ready ## Create .venv with locked versions

.cache/uv/bin/uv:
	@test -n "$(PYTHON)" || { echo "embedfleet needs Python 3.11 or 3.12 on the PATH (or PYTHON=...)." >&2; exit 1; }
	$(PYTHON) -m venv .cache/uv
	.cache/uv/bin/python -m pip install --quiet uv

.venv/.ready: pyproject.toml requirements.lock | $(filter .cache/%,$(UV))
	@test -n "$(PYTHON)" || { echo "embedfleet needs Python 3.11 or 3.12 on the PATH (or PYTHON=...)." >&2; exit 1; }
	@test -x $(BIN)/python || $(UV) venv --python $(PYTHON) .venv
	$(UV) pip install --python $(BIN)/python --compile-bytecode --constraint requirements.lock \
	    --requirement pyproject.toml --extra dev
	$(UV) pip install --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: setup ## Start a fleet, index a corpus, search it through gRPC, stop
	@$(BIN)/embedfleet demo

up: setup ## Start the demo's fleet and leave it running
	@$(BIN)/embedfleet up --detach -f platform/embedfleet/embedded/fleet.yaml

down: setup ## Stop it
	@$(BIN)/embedfleet down

check: lint types layers unit ## Lint, types, layers, unit tests: under three minutes

lint: setup ## Style and stale generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python protos/generate.py --check

types: setup ## mypy --strict
	$(BIN)/mypy

layers: setup ## The architecture, checked
	$(BIN)/lint-imports

unit: setup ## Fast tests of pure code
	OMP_NUM_THREADS=1 $(PYTEST) -q -n auto --dist worksteal tests/unit tests/contract

test: check tools ## Everything: the two halves often wait, so they run side by side
	@$(MAKE) --no-print-directory --jobs=2 --keep-going test-fleets test-clusters

test-fleets: setup ## Training, and fleets on this machine
	@set -o pipefail; $(PYTEST) tests/tuning tests/parity tests/integration 2>&1 | sed -u 's/^/[fleets]   /'

test-clusters: setup ## The operator on real control planes, and the whole chain
	@set -o pipefail; $(PYTEST) tests/clusters tests/e2e 2>&1 | sed -u 's/^/[clusters] /'

chaos: setup tools ## Do one thing after the other to a fleet under traffic: about 40 minutes
	@$(BIN)/python tests/e2e/chaos.py $(ARGS)

soak: setup tools ## Use a fleet for 20 minutes and see whether anything grows
	@$(BIN)/python tests/e2e/soak.py $(ARGS)

tools: setup ## Build the programs that tests call, where there is Go: once, about 20 minutes
	@$(BIN)/python tests/go_tools.py

BENCHMARKS := roof throughput rerank tax front latency interference memory operator tune evaluate

bench: $(BENCHMARKS:%=bench-%) ## Every measure, one after the other: about an hour and a half

bench-%: setup ## One of them, such as bench-throughput
	@$(BIN)/python tests/benchmarks/$*.py $(ARGS)

# Not named after the module of the standard library, which it would hide from all the others.
bench-operator: setup
	@$(BIN)/python tests/benchmarks/operator_scale.py $(ARGS)

protos: setup ## Regenerate the gRPC stubs
	$(BIN)/python protos/generate.py

crds: setup ## Rewrite the chart of custom resource definitions
	$(BIN)/python -m embedfleet_operator.crds charts/embedfleet-crds/templates

docs: setup ## Rewrite the tables and the schema that documents and charts repeat of the code
	$(BIN)/python -m embedfleet_operator.docs .

models: setup ## Make the embedded models anew from gathered data: hours, on a Debian machine
	$(UV) pip install --python $(BIN)/python --requirement pyproject.toml --extra recipe
	$(BIN)/python -m embedfleet.embedded.recipe .cache/models

lock: setup ## Update requirements.lock
	$(UV) pip compile --universal --python-version 3.11 --extra dev --upgrade --no-header --no-annotate --output-file requirements.lock pyproject.toml

clean: ## Remove .venv, .cache and the caches of linters and tests from this folder
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
