# Every target sets up what it needs, once: the stamps in $(VENV) say what has been done.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FRESH := build/constraints
# pip compiles all that it installs, which takes longer than to install it. Python compiles what is
# imported and keeps that, unless this variable is set: then each process does it anew.
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --no-compile
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo lint types test torture families ranks gpu coverage check docs constraints clean

demo: $(VENV)/.installed
	$(BIN)/e2urec demo --out demo

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed
	$(BIN)/mypy

test: $(VENV)/.fetched
	$(BIN)/python -m pytest -n auto --dist worksteal

# What takes minutes: hundreds of kills, power cuts, races, probes and bad inputs.
torture: $(VENV)/.installed
	$(BIN)/python -m pytest -m torture tests/torture

# Every family of models, built tiny from its config, and every pair of a kind of model with a kind
# of original; the ordinary tests hold one of each kind.
families: $(VENV)/.installed
	$(BIN)/python -m pytest -n auto -m "families or not families" tests/contract \
		tests/unit/test_speed.py tests/system/test_import_decoders.py

# Every method, a rehearsal, a launch's refusals and a signal in two processes of a launcher.
ranks: $(VENV)/.installed
	$(BIN)/python -m pytest -m "ranks or not ranks" tests/system/test_two_processes.py \
		tests/system/test_ranks_share.py tests/system/test_signals.py

# Toys on this machine's GPU; E2UREC_TEST_DEVICE=cpu runs the same on the CPU.
gpu: $(VENV)/.installed
	$(BIN)/python -m pytest -m gpu -rs tests/gpu

# The same tests, which take longer when every branch is counted. The last line holds statements,
# misses, branches, half-taken branches, and the share covered.
coverage: $(VENV)/.fetched
	$(BIN)/python -m pytest -n auto --cov --cov-report=
	$(BIN)/python -m coverage report | tail -n 1

check: lint types test

# The site, in site/: no broken link, and no public name without a description.
docs: $(VENV)/.documented
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/draw_result.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/.documented: $(VENV)/.installed
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable '.[docs]'
	touch $@

# The newest releases that the ranges in pyproject.toml admit, in an environment of their own. A
# local label such as torch's +cpu is taken off, so that every build of a release will do.
constraints:
	rm -rf $(FRESH)
	$(PYTHON) -m venv $(FRESH)
	$(FRESH)/bin/python $(PIP_INSTALL) --editable '.[dev,docs]'
	grep '^#' constraints.txt > $(FRESH)/new.txt
	$(FRESH)/bin/python -m pip freeze --exclude-editable | sed 's/+.*//' >> $(FRESH)/new.txt
	mv $(FRESH)/new.txt constraints.txt
	rm -rf $(FRESH)

# The version is read from __init__.py when the package is installed.
$(VENV)/.installed: pyproject.toml constraints.txt src/e2urec/__init__.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/.fetched: $(VENV)/.installed
	$(BIN)/e2urec fetch movielens-100k
	touch $@

clean:
	rm -rf $(VENV) build demo site .coverage* .pytest_cache .mypy_cache .ruff_cache
