# make run    start extenbot here, with everything it needs in .venv and its data in var/
# make test   install what the tests need and run them all
# make lint   ruff and mypy

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help run test lint bench clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# //p' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("extenbot needs Python 3.11 or newer; this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

# Installed anew only when what is asked for changed.
$(VENV)/run.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[speech]'
	@touch $@

$(VENV)/test.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test,lint]'
	@touch $@

run: $(VENV)/run.stamp
	@exec $(BIN)/twistd --nodaemon --pidfile= --logfile=- extenbot

test: $(VENV)/test.stamp
	@sh tests/install.sh
ifdef ARGS
	$(BIN)/pytest $(ARGS)
else
	$(BIN)/pytest -m "not real" -n auto --maxprocesses 4
	$(BIN)/pytest -m "real and not timed" -n auto --maxprocesses 4
	$(BIN)/pytest -m timed
endif

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/test.stamp
	$(BIN)/python bench/calls.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
