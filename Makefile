# Two commands on a machine with only Python, git and make:
#   make demo    environment, installation, and the whole way on simulated patients
#   make test    lint and all tests
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo_out
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEVELOPED := $(VENV)/.developed
# The package as it is installed: import-linter does not know setup.py's mapping.
IMPORTS := build/imports
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: demo test lint install clean

install: $(INSTALLED)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): setup.py pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -c constraints.txt -e .
	touch $@

$(DEVELOPED): $(INSTALLED)
	$(PIP) install -c constraints.txt -e ".[dev]"
	touch $@

demo: $(INSTALLED)
	rm -rf $(DEMO)
	$(BIN)/nnUNetv2_mip_demo -o $(DEMO)

lint: $(DEVELOPED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	rm -rf $(IMPORTS)
	mkdir -p $(IMPORTS)
	cp -r pyproject.toml nnunetv2_mip $(IMPORTS)
	cp -r dataset_conversion trainers plans $(IMPORTS)/nnunetv2_mip
	cd $(IMPORTS) && $(CURDIR)/$(BIN)/lint-imports --no-logo --no-cache

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info
