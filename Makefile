# `make demo` and `make test` need git, make and Python 3.11; all else goes into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: demo test lint types pipeline others slurm clean

demo: .venv/installed
	rm -rf demo
	mkdir demo
	$(BIN)/isosr-pipeline simulate demo/blurred.tif --truth demo/truth.tif --scene neurites \
		--shape 128 --photons 1000
	$(BIN)/isosr-pipeline run examples/demo.yaml

# Tests of SLURM wait more than they compute, and others for one process: all run side by side.
# Threads of one that wait for each other would keep the cores from the others.
test: export OMP_NUM_THREADS ?= 1
test: lint types
	$(MAKE) --jobs=3 --output-sync=target slurm pipeline others

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed
	$(BIN)/mypy

pipeline: .venv/installed
	$(BIN)/pytest tests/pipeline

others: .venv/installed
	$(BIN)/pytest --ignore=tests/slurm --ignore=tests/pipeline

slurm: .venv/installed
	$(BIN)/pytest tests/slurm

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv demo .mypy_cache .pytest_cache .ruff_cache .hypothesis
