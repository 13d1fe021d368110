# Needs Python 3.11+ and make. Everything else is set up in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint lock audit soak clean help

help:
	@echo "make demo          the service with two synthetic studies; ONCE=1 ends by itself"
	@echo "make test          linters, types, all tests"
	@echo "make lint          linters and types only"
	@echo "make lock          pin and hash what serving depends on, from pyproject.toml"
	@echo "make audit         known vulnerabilities of what is pinned"
	@echo "make soak          kill the service KILLS=200 times while data flow; SEED=... repeats a run"
	@echo "make clean         remove .venv and caches"

$(VENV)/serve.stamp: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
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

lock:
	$(BIN)/pip install --quiet --disable-pip-version-check "uv>=0.8,<1"
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
		--no-annotate --custom-compile-command "make lock" --upgrade --quiet -o requirements.lock

audit: $(VENV)/serve.stamp
	$(BIN)/pip install --quiet --disable-pip-version-check "pip-audit>=2.9,<3"
	$(BIN)/pip-audit --requirement requirements.lock --disable-pip --progress-spinner off

soak: $(VENV)/test.stamp
	$(BIN)/python -W ignore -m tests.soak.harness --kills $(or $(KILLS),200) $(if $(SEED),--seed $(SEED))

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist *.egg-info
