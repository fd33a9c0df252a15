# make demo    the main job on the clip that ships with the project, and on a drawn one of 16:9
# make test    every check and test
# make check   format, lint, types, import rules
# make docs    the site of the documents, in site/; a broken link or reference fails
# make setup   .venv with everything the above need, at exact versions
# make clean   forget what was built

PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python -m

.PHONY: demo test check docs setup clean format

demo: .venv/.demo
	$(BIN)/ape-stream run examples/demo.toml
	$(BIN)/ape-stream run examples/demo_wide.toml

test: check docs
	OMP_NUM_THREADS=1 $(RUN) pytest -n 2
	tools/test-with-ros.sh

check: .venv/.setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/.setup
	$(BIN)/zensical build --strict --clean

format: .venv/.setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

setup: .venv/.setup

.venv/bin/python:
	tools/system-packages.sh $(PYTHON)
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python pyproject.toml constraints.txt
	$(RUN) pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/.setup: .venv/bin/python pyproject.toml constraints.txt
	$(RUN) pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@ .venv/.demo

clean:
	rm -rf .venv build dist out site .cache *.egg-info .mypy_cache .pytest_cache .ruff_cache
