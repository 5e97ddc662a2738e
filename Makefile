PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
INSTALL := $(RUN)/python -m pip install --quiet --constraint constraints.txt --editable

.PHONY: serve test test-all test-gpu

serve: $(VENV)/serve.stamp  ## the service on http://127.0.0.1:8000, gallery in ./data
	$(RUN)/resight serve

test: $(VENV)/test.stamp  ## style, types and the suite
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/pytest -m "not gpu"

test-all: test test-gpu  ## adds what needs an engine that may be absent

test-gpu: $(VENV)/test.stamp
	timeout 600 $(RUN)/pytest -m gpu -rs

$(VENV)/serve.stamp: pyproject.toml constraints.txt | $(RUN)/python
	$(INSTALL) '.[cpu]'
	touch $@

$(VENV)/test.stamp: pyproject.toml constraints.txt | $(RUN)/python
	$(INSTALL) '.[cpu,train,dev]'
	touch $@

$(RUN)/python:
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --upgrade pip
