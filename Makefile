# `make demo` and `make test` do all their own set-up, in .venv; nothing outside this folder is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# numeric libraries must not fight over the cores when several test processes run
JOBS ?= 2
# hundreds of processes are started: without bytecode each of them would compile all that it imports
test faults: export PYTHONDONTWRITEBYTECODE =

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint faults bench clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 10

NATIVE := hatch_build.py $(wildcard src/vitlab/data/native/*.c)

$(VENV)/.installed: pyproject.toml constraints.txt $(NATIVE)
	@echo "Setting up $(VENV): torch (CPU), vitlab and its development tools; a minute or two, once."
	$(PYTHON) -c 'import sys; sys.exit("vitlab needs Python 3.11 or newer: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	@touch $@

setup: $(VENV)/.installed  ## make the virtual environment

demo: setup  ## the paper in miniature: three minutes, no network
	$(BIN)/vitlab demo

lint: setup  ## ruff, pyright (strict), import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

test: lint  ## lint and every test that is not slow
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m "not slow"

faults: setup  ## the slow tests: many crashes, large models
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m slow

bench: setup  ## measure, and write the table in benchmarks/README.md
	$(BIN)/python benchmarks/table.py

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache
