# Needs Python 3.11+ and make. Everything else is set up in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint clean help

help:
	@echo "make demo          the service with two synthetic studies; ONCE=1 ends by itself"
	@echo "make test          linters, types, all tests"
	@echo "make lint          linters and types only"
	@echo "make clean         remove .venv and caches"

$(VENV)/serve.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/test.stamp: $(VENV)/serve.stamp
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,train]"
	touch $@

demo: $(VENV)/serve.stamp
	$(BIN)/triage demo $(if $(ONCE),--once)

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest $(PYTEST_ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist *.egg-info
