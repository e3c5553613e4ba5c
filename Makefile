# Two commands do everything on a fresh machine: make demo, make test.
# PIP_ARGS passes options on to pip:   make demo PIP_ARGS="--index-url URL-of-PyTorch's-CPU-wheels --extra-index-url URL"
# the first that runs (a pyenv shim may exist without a Python behind it) and is 3.11 to 3.13
PYTHON   ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
PIP_ARGS ?=
VENV     ?= .venv
BIN       = $(VENV)/bin
PIP       = $(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt

.PHONY: demo test test-slow test-browser test-all lint bench ui clean help

help:          ## this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11-3.13 is needed and not found; run: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# a stamp per set of packages: nothing is installed again until pyproject.toml or constraints.txt changes
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) -e '.[test]'
	@touch $@

demo: $(VENV)/.installed                ## raw phantom recordings of four sites to a scored, registered model
	$(BIN)/python -m jobs.demo demo

lint: $(VENV)/.installed-test           ## ruff, mypy and the layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint                              ## lint, types, layers and the fast tests
	$(BIN)/python -m pytest

test-slow: $(VENV)/.installed-test      ## the tests that take minutes
	$(BIN)/python -m pytest -m slow --timeout 3600

test-browser: $(VENV)/.installed-test   ## the MLflow UI in headless Chromium (needs Chromium on the machine)
	$(BIN)/python -m pytest -m browser

test-all: test test-slow test-browser   ## everything above

bench: $(VENV)/.installed-test          ## print the figures of docs/performance.md
	$(BIN)/python -m benchmarks

ui: $(VENV)/.installed                  ## serve the demo's MLflow UI
	$(BIN)/neurobolt ui --folder demo/mlflow

clean:         ## remove the demo's output, keep the environment
	rm -rf demo
