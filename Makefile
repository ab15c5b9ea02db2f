# Every target makes .venv first; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYG := .venv-pyg

.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -U pip
	$(BIN)/pip install -q -c constraints.txt -e ".[all,dev]"
	@touch $@

$(PYG)/.installed: $(STAMP) tests/pyg/make_venv.sh
	tests/pyg/make_venv.sh $(VENV) $(PYG)

setup: $(STAMP)  ## make .venv and install everything

demo: $(STAMP)  ## train, score and draw on the embedded faces (about four minutes)
	$(BIN)/aurel demo

test: $(STAMP)  ## run the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

test-pyg: $(PYG)/.installed  ## the tests on ragged graphs, with torch-cluster and torch-scatter (compiles them once)
	OMP_NUM_THREADS=1 $(PYG)/bin/python -m pytest -q tests/pyg tests/ops/test_ragged_knn_graph.py tests/ops/test_ragged_aggregate.py

test-long: $(STAMP)  ## the property tests with ten times the examples, drawn anew
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal -m hypothesis --hypothesis-profile=long

lint: $(STAMP)  ## ruff, mypy, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy aurel kernels/aurel_kernels
	$(BIN)/lint-imports

bench: $(STAMP)  ## the speed benchmarks on this machine (about ten minutes)
	$(BIN)/python benchmarks/multi_dimensional_edges.py
	$(BIN)/python benchmarks/knn_max_relative.py
	$(BIN)/python benchmarks/me_graphau_training_step.py

kernels-report: $(STAMP)  ## compile every kernel for four GPUs, without one; fail on a spill
	$(BIN)/python -m aurel_kernels.report

clean:  ## remove .venv and caches
	rm -rf $(VENV) $(PYG) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache benchmarks/.mypy_cache dist build

.PHONY: help setup demo test test-pyg test-long lint bench kernels-report clean
