# Two commands on a machine with only Python, git and make:
#   make demo    environment, installation, and the whole way on simulated patients
#   make test    lint and all tests
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo_out
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEVELOPED := $(VENV)/.developed
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

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info
