# `make demo` and `make test` work on a fresh machine: they build VENV first. `make help` lists the rest.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
DEMO ?= demo

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo test test-all test-lowest lint peers bench docs notebooks dist clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(INSTALLED)  ## install the package and what its tests need into VENV (default .venv)

# The stamp is written last, so an interrupted installation is taken up again.
# torch comes first and alone: the resolver then keeps the build found for this machine (CPU or CUDA).
$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade "pip>=25.1"
	$(PIP) install --quiet torch -c $(CONSTRAINTS)
	$(PIP) install --quiet -e . --group test -c $(CONSTRAINTS)
	@touch $@

install-dev: $(INSTALLED_DEV)

$(INSTALLED_DEV): $(INSTALLED)
	$(PIP) install --quiet --group dev -c $(CONSTRAINTS)
	@touch $@

demo: $(INSTALLED)  ## simulate cells, integrate them, print scores, write figures into DEMO (default demo)
	$(BIN)/scmamba-scvi demo --out $(DEMO)

# A process for each core, each with one thread; the tests of a file share a process, and so what they share.
test: $(INSTALLED)  ## run the tests (without those marked slow or gpu)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile

test-all: $(INSTALLED)  ## run the slow tests too
	$(BIN)/python -m pytest -m "not gpu"

test-lowest:  ## run the tests with the lowest versions that pyproject.toml allows (Python 3.11)
	$(MAKE) test VENV=$(VENV)-lowest CONSTRAINTS=constraints-lowest.txt

lint: $(INSTALLED_DEV)  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

peers: $(INSTALLED)  ## install the methods that the benchmarks compare with
	$(PIP) install --quiet --group peers -c $(CONSTRAINTS)

bench: $(INSTALLED)  ## measure speed against the cost of the matrix products alone
	$(BIN)/python benchmarks/speed.py

docs: $(INSTALLED)  ## build the documentation into docs/_build
	$(PIP) install --quiet -e ".[docs]" -c $(CONSTRAINTS)
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

notebooks: $(INSTALLED)  ## run the notebooks and store what they show
	$(PIP) install --quiet --group notebooks -c $(CONSTRAINTS)
	OMP_NUM_THREADS=1 $(BIN)/python notebooks/execute.py

dist: $(INSTALLED)  ## build wheel and sdist into dist and check their metadata
	$(PIP) install --quiet build twine
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

clean:  ## remove VENV, caches and what was built
	rm -rf $(VENV) $(VENV)-lowest build dist docs/_build docs/generated .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
