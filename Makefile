# Two commands on a machine with only Python, git and make:
#   make demo    environment, installation, and the whole way on simulated patients
#   make test    lint and all tests
# For work on the code: make test-fast, make lint, make coverage, make docs (CONTRIBUTING.md).
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo_out
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEVELOPED := $(VENV)/.developed
DOCUMENTED := $(VENV)/.documented
# A copy in the folders of an installation: import-linter and mypy do not know setup.py's mapping.
IMPORTS := build/imports
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

# Two files of tests at a time.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: demo test test-fast coverage docs lint install clean

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
	cd $(IMPORTS) && $(CURDIR)/$(BIN)/mypy --cache-dir $(CURDIR)/.mypy_cache -p nnunetv2_mip

test: lint
	$(PYTEST)

test-fast: $(DEVELOPED)
	$(PYTEST) -m "not slow and not browser"

$(DOCUMENTED): $(INSTALLED)
	$(PIP) install -c constraints.txt -e ".[docs]"
	touch $@

# The site in build/site; it opens from disk. Once installed, nothing is fetched. Warnings and dead links are errors
# (not with -q, which drops warnings before --strict counts them).
docs: $(DOCUMENTED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -f docs/mkdocs/mkdocs.yml

coverage: $(DEVELOPED)
	$(PYTEST) --cov --cov-report=term

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info .coverage .mypy_cache
