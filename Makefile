# The developer's commands. Each makes .venv and installs what it needs the first time.

# The first that runs and is new enough; a name on the PATH may be only a shim.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
DEMO ?= demo
# What was compiled once is kept.
export PYTHONDONTWRITEBYTECODE :=
# Test processes side by side; more than two wait for each other's network training. A file stays in one of them,
# which makes what all its tests look at; the files with the longest tests are not the last ones. A process that crashes
# ends the run, and is named: replaced, it can wait for its last file forever (pytest-xdist #1378).
WORKERS ?= 2

# uv installs in a fraction of pip's time: the one on the PATH, or one that pip fetches. It does not read pip's settings:
# pip does the work where it was told another index, and wherever uv cannot. Compiling here, on all cores, spares the
# first command some 40 s.
comma := ,
define install
@uv=$$(command -v uv) && $$uv --version >/dev/null 2>&1 || { uv=$(BIN)/uv; $(PIP) install -q -c constraints.txt uv; }; \
{ ! $(PIP) config list | grep -q '[.]index-url=' && \
  $$uv pip install -q --compile-bytecode --python $(BIN)/python -c constraints.txt -e '$(1)'; } || \
{ echo "… by pip, which takes longer."; $(PIP) install -q -c constraints.txt -e '$(1)'; }
endef

.PHONY: help demo test test-slow check format bench clean

help:
	@echo "make demo       the main job end to end, on photos that it makes itself in about two minutes (results in $(DEMO)/)"
	@echo "make test       all tests that fit into minutes"
	@echo "make test-slow  the long ones"
	@echo "make check      format, lint, types, import direction, generated pages"
	@echo "make format     write what check wants, where it can be written"
	@echo "make bench      speed and memory, as ratios"
	@echo "make clean      remove what these commands made"

demo: $(VENV)/.train
	$(BIN)/plantml demo $(DEMO)

test: $(VENV)/.dev
	$(BIN)/pytest -m "not slow" -n $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test-slow: $(VENV)/.dev
	$(BIN)/pytest -m slow --timeout 3600 -rs

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python docs/generate.py --check
	$(BIN)/python docs/translate.py --check

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/translate.py

bench: $(VENV)/.dev
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) $(DEMO) build dist bench/results .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "plantml needs Python 3.11 or newer: make PYTHON=/path/to/python …"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.train: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing plantml with its training part (several GB the first time) …"
	$(call install,.[train])
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing plantml with everything (several GB the first time) …"
	$(call install,.[all$(comma)dev])
	@touch $@ $(VENV)/.train
