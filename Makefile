# The recipes that people, hooks and CI share. Nothing outside this directory is changed, except
# that `make test` installs Debian packages of real mail programs when it runs as root on Debian.
#
#   make run [ARGS=--once]    the demonstration: a server on loopback, and the whole story live
#   make test [ARGS=...]      every test; ARGS go to pytest
#   make check                style, types, layers, spelling, references, generated files; never edits
#   make fix                  what can be mended by a program: format, imports, generated files
#   make bench [ARGS=...]     benchmarks against the real servers on this machine
#   make soak                 the slow tests with many rounds
#   make fuzz                 each fuzz target for FUZZ_SECONDS
#   make coverage             branch coverage of the tests that need no other program
#   make clean                removes .venv and what the tools left behind

PYTHON ?= python3
FUZZ_SECONDS ?= 60
SOAK_ROUNDS ?= 50
ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet --quiet

.DELETE_ON_ERROR:
.PHONY: run test check fix bench soak fuzz coverage peers clean help

help:
	@sed -n 's/^#   //p' Makefile

# Stamps: a file below .venv is newer than pyproject.toml when that set of dependencies is installed.
$(VENV)/.made:
	@tools/make-venv $(PYTHON) $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.made pyproject.toml
	@echo "installing popgate into $(VENV)" >&2
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.made pyproject.toml
	@echo "installing popgate and what its tests need into $(VENV)" >&2
	@$(PIP) install --editable '.[test]'
	@touch $(VENV)/.run $@

$(VENV)/.check: $(VENV)/.made pyproject.toml
	@echo "installing popgate and the checkers into $(VENV)" >&2
	@$(PIP) install --editable '.[check]'
	@touch $(VENV)/.run $@

$(VENV)/.fuzz: $(VENV)/.test pyproject.toml
	@$(PIP) install --editable '.[fuzz]' || echo "atheris cannot be installed here; nothing is fuzzed" >&2
	@touch $@

run: $(VENV)/.run
	@$(VENV)/bin/popgate demo $(ARGS)

peers:
	@tools/install-peers tests/peers/packages.txt
	@tools/unpack-peers tests/peers/unpacked.txt $(VENV)/peers
	@tools/unpack-peers tests/peers/unpacked-cyrus.txt $(VENV)/peers-cyrus

test: $(VENV)/.test peers
	@$(PY) -m pytest -n auto --dist worksteal $(ARGS)

check: $(VENV)/.check
	@PATH="$(abspath $(VENV))/bin:$$PATH" tools/check

fix: $(VENV)/.check
	@$(VENV)/bin/ruff check --quiet --fix . || true
	@$(VENV)/bin/ruff format --quiet .
	@$(PY) -m tools.generated --write

bench: $(VENV)/.test peers
	@$(PY) bench/run.py $(ARGS)

soak: $(VENV)/.test peers
	@POPGATE_SOAK_ROUNDS=$(SOAK_ROUNDS) $(PY) -m pytest -m slow --timeout 7200 $(ARGS)

fuzz: $(VENV)/.fuzz
	@$(PY) -m tools.fuzz --seconds $(FUZZ_SECONDS) $(ARGS)

coverage: $(VENV)/.test
	@$(PIP) install 'pytest-cov>=6'
	@$(PY) -m pytest -n auto --cov=popgate --cov-branch --cov-report=term-missing:skip-covered \
		--ignore=tests/peers $(ARGS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
