# Two commands do everything on a fresh machine: make demo, make test.
# PIP_ARGS passes options on to pip:   make demo PIP_ARGS="--index-url URL-of-PyTorch's-CPU-wheels --extra-index-url URL"
PYTHON   ?= $(firstword $(foreach v,3.13 3.12 3.11,$(if $(shell command -v python$(v)),python$(v))) python3)
PIP_ARGS ?=
VENV     ?= .venv
BIN       = $(VENV)/bin
PIP       = $(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt

.PHONY: demo test test-slow test-browser test-all lint bench ui clean help

help:          ## this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"Python 3.11-3.13 is needed, {sys.executable} is {v[0]}.{v[1]}; run: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12")'
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

test: $(VENV)/.installed-test           ## lint, types, layers and the fast tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
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
