# A first call of a target installs what it needs into .venv; a second one is quick.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup test reproduce check bench

setup: .venv/setup.stamp

test: .venv/dev.stamp
	$(BIN)/python -m pytest

reproduce: setup
	$(BIN)/hotoven reproduce lavagrid --preset quick

check: .venv/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: .venv/bench.stamp
	for what in env learn evaluate; do $(BIN)/hotoven bench $$what || exit 1; done

.venv/setup.stamp: pyproject.toml | .venv/created.stamp
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/dev.stamp: pyproject.toml | .venv/created.stamp
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ .venv/setup.stamp

.venv/bench.stamp: pyproject.toml | .venv/created.stamp
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	@touch $@ .venv/setup.stamp

# Debian's python3 comes without ensurepip, which venv needs; virtualenv brings its own pip.
.venv/created.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "hotoven needs Python 3.11 or later; name one with: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
	  exit 1; }
	@{ $(PYTHON) -c 'import ensurepip' 2>/dev/null && $(PYTHON) -m venv .venv; } \
	  || $(PYTHON) -m virtualenv --quiet .venv 2>/dev/null \
	  || { rm -rf .venv; \
	       echo "$(PYTHON) cannot make a virtual environment: install its venv module" \
	            "(Debian, Ubuntu: apt install python3-venv) or run: pip install virtualenv" >&2; \
	       exit 1; }
	@touch $@
