# make simulate   install and run the flagship example
# make test       install and run every test but the nightly ones
# make nightly    the slow tests, surveys of all types there are among them: six minutes on two idle cores
# make lint       style
# make browser    install Chromium (Debian) for the tests of tests/browser, and run them
# make bench      speed of the command      make clean   remove what make made
# make accuracy DATA="DIR …"   docs/accuracy.md from folders of measured tables
#
# PYTHON is the interpreter to start from, VENV where to install, PIP_FLAGS go to pip (another index, say).

PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=
WORKERS ?= 2
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_FLAGS)

.PHONY: simulate test nightly browser lint bench accuracy clean
.DELETE_ON_ERROR:

simulate: $(VENV)/.installed
	$(BIN)/tensorcast simulate --model deepseek-v3 --hw ascend-910b --tp 8

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

nightly: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m nightly -n $(WORKERS) --dist worksteal

browser: $(VENV)/.installed-test
	command -v chromium || (apt-get update && apt-get install --yes --no-install-recommends chromium)
	$(BIN)/python -m pytest tests/browser

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/retrace.py
	$(BIN)/python benchmarks/cost.py

accuracy: $(VENV)/.installed
	$(BIN)/python benchmarks/accuracy.py $(DATA) --out docs/accuracy.md

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The stamps are older than these files only when something has to be installed again.
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) -e .
	touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) -e ".[test]"
	touch $@ $(VENV)/.installed
