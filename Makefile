# A first call of a target installs what it needs into .venv; a second one is quick.
PYTHON ?= python3
BIN := .venv/bin

# The peers' interpreter: procgen2 has a wheel for no other CPython than 3.11.
PYTHON311 ?= $(shell $(PYTHON) -c 'import sys; print(sys.executable if sys.version_info[:2] == (3, 11) else "python3.11")')

.PHONY: setup test test-long test-live test-browser watch reproduce reproduce-coinrun check bench bench-peers

setup: .venv/setup.stamp

# A process for each core; a file's tests stay together, with what they share. In the order of files:
# else those with few tests come last, which are the slow ones, and one process waits for the other.
# Most tests compile for longer than they compute: their programs are not optimised. Those that are
# marked say what holds to the bit, or compute for long: their programs are compiled as for users.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder \
  --ignore tests/browser
# The second flag is JAX 0.10's: later versions end at once where they are given it.
EMITTERS := --xla_cpu_use_fusion_emitters=false
HASTY ?= --xla_backend_optimization_level=0 \
  $(shell XLA_FLAGS=$(EMITTERS) $(BIN)/python -c 'import jax; jax.devices()' 2>/dev/null && echo $(EMITTERS))

test: .venv/dev.stamp
	$(PYTEST) -m 'optimised and not long'
	XLA_FLAGS="$$XLA_FLAGS $(HASTY)" $(PYTEST) -m 'not optimised and not long'

# What takes minutes: whole studies, killed and resumed, and the like.
test-long: .venv/dev.stamp
	$(BIN)/python -m pytest -m long --ignore tests/browser

# The pages, in Debian's Chromium or the one that HOTOVEN_CHROMIUM names.
test-browser: .venv/browser.stamp
	@[ -n "$$HOTOVEN_CHROMIUM" ] || command -v chromium >/dev/null || \
	  { apt-get update --quiet && apt-get install --yes --quiet --no-install-recommends chromium; }
	$(BIN)/python -m pytest tests/browser

# The real CoinRun, on levels and actions drawn from SEED, or anew where it is not given.
test-live: .venv/dev.stamp .venv-peers/procgen2/setup.stamp
	HOTOVEN_PROCGEN_PYTHON=.venv-peers/procgen2/bin/python HOTOVEN_LIVE_SEED=$(SEED) \
	  $(BIN)/python -m pytest --capture=no tests/test_coinrun_live.py

# Agents play unseen levels in your browser, and ask you for help. LavaGrid: RUN=results/quick
RUN ?= results/coinrun-quick
watch: setup
	$(BIN)/hotoven watch $(RUN)

reproduce: setup
	$(BIN)/hotoven reproduce lavagrid --preset quick --resume

reproduce-coinrun: setup
	$(BIN)/hotoven reproduce coinrun --preset quick --resume

check: .venv/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: .venv/bench.stamp bench-peers
	for what in env coinrun levels learn ppo evaluate predict; do $(BIN)/hotoven bench $$what || exit 1; done

# The engines that CoinRun's speed is compared with; hotoven.peers plays them.
bench-peers: .venv-peers/envpool/setup.stamp .venv-peers/procgen2/setup.stamp

.venv/setup.stamp: pyproject.toml | .venv/created.stamp
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/dev.stamp: pyproject.toml | .venv/created.stamp
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ .venv/setup.stamp

.venv/browser.stamp: pyproject.toml | .venv/created.stamp
	$(BIN)/python -m pip install --quiet --editable '.[dev,browser]'
	@touch $@ .venv/dev.stamp .venv/setup.stamp

.venv/bench.stamp: pyproject.toml | .venv/created.stamp
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	@touch $@ .venv/setup.stamp

# With which EnvPool's CoinRun is learned. Alone and first: it is large.
.venv-peers/envpool/setup.stamp: FIRST := torch==2.13.0

# What ours is compared with lives apart: procgen2 needs numpy 1, jax numpy 2, and procgen2 and
# envpool different versions of glfw. Without a pip of its own, since that would need ensurepip.
.venv-peers/%/setup.stamp: benchmarks/peers/%.txt | .venv/created.stamp
	@$(PYTHON311) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
	  echo "$* needs CPython 3.11; name one with: make $(MAKECMDGOALS) PYTHON311=/path/to/python3.11" >&2; \
	  exit 1; }
	rm -rf .venv-peers/$*
	$(PYTHON311) -m venv --without-pip .venv-peers/$*
	$(if $(FIRST),$(BIN)/python -m pip --python .venv-peers/$*/bin/python install --quiet $(FIRST))
	$(BIN)/python -m pip --python .venv-peers/$*/bin/python install --quiet --requirement $<
	@touch $@

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
