# TokenGate: `make wave` runs the benchmark, `make test` runs every check; `make help` lists the rest.
#
# Each needs only Python 3.11 or newer with its headers, and a C compiler. The package is built as a
# user gets it - sdist, wheel, install - into a virtual environment of its own.

PYTHON ?= python3
# One environment per interpreter and kind of build: .venv for the default, else .venv-python3.14,
# .venv-debug, .venv-thread (setup.py says what the two variables do).
empty :=
VENV ?= .venv$(subst $(empty) ,,$(addprefix -,$(filter-out python3,$(notdir $(PYTHON))) \
	$(if $(filter-out 0,$(TOKENGATE_DEBUG)),debug) $(TOKENGATE_SANITIZE)))
# What the suite may use: test (all), test-peers (no uvloop, no checkers), test-core (pytest alone).
TEST_EXTRA ?= test
# Passed on: make wave WAVE_ARGS="--waves 8 --plot wave.png"; make suite PYTEST_ARGS="-k fork".
WAVE_ARGS ?=
BENCH_ARGS ?=
PYTEST_ARGS ?=
# For pip when it installs an extra: EXTRA_PIP=--only-binary=:all: never compiles a dependency.
EXTRA_PIP ?=

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
SDIST := py_tokengate-$(VERSION).tar.gz
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
# Wheels where there are any: the newest release of a test tool may have none for this interpreter.
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --prefer-binary

# The folders are there so that a file that was removed is noticed, too.
BUILT_FROM := setup.py pyproject.toml MANIFEST.in LICENSE README.md \
	$(shell find tokengate -type d -not -name __pycache__ -o -type f -name '*.py' -o -name '*.py[xi]' \
		-o -name '*.pxi' -o -name '*.pxd' -o -name '*.h' -o -name py.typed)
PACKED := $(BUILT_FROM) Makefile CHANGELOG.md CONTRIBUTING.md \
	$(shell find bench demo docs tests -type f -not -name '*.pyc' 2>/dev/null)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help wave bench test check lint types suite native model sanitized sdist wheel install env clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

wave: $(STAMPS)/package $(if $(findstring --plot,$(WAVE_ARGS)),$(STAMPS)/with-plot) ## the wave benchmark: 131,068 tokens in 15 waves
	$(BIN)/tokengate wave $(WAVE_ARGS)

bench: $(STAMPS)/package $(STAMPS)/with-bench ## compare with the usual ways of running a function off the loop
	$(BIN)/python bench/peers.py $(BENCH_ARGS)

test: check suite ## all checks and all tests

check: lint types ## lint, format, types, stubs

lint: $(STAMPS)/with-$(TEST_EXTRA) ## lint and format alone
	$(BIN)/ruff check
	$(BIN)/ruff format --check

# The last two look at the package that is installed: every public name has a type, and _core.pyi
# tells the truth. pyright finds it by PATH; -P keeps the bare source in this folder out of the way.
types: $(STAMPS)/package $(STAMPS)/with-$(TEST_EXTRA) ## types and stubs alone
	$(BIN)/mypy
	PATH="$(abspath $(BIN)):$$PATH" pyright
	PATH="$(abspath $(BIN)):$$PATH" pyright --verifytypes tokengate --ignoreexternal
	$(BIN)/python -P -m mypy.stubtest tokengate._core tokengate._board

suite: $(STAMPS)/package $(STAMPS)/with-$(TEST_EXTRA) ## the tests alone
	$(BIN)/pytest $(PYTEST_ARGS)

native: $(STAMPS)/package $(STAMPS)/with-$(TEST_EXTRA) ## the tests of the C headers alone
	$(BIN)/pytest tests/native $(PYTEST_ARGS)

model: $(STAMPS)/package $(STAMPS)/with-$(TEST_EXTRA) ## the models of the native layer alone (needs spin)
	$(BIN)/pytest tests/model $(PYTEST_ARGS)

# The interpreter is not instrumented, so the sanitizer's library comes first; what it leaks is its own.
sanitized: ## the stress tests on a build with AddressSanitizer; best with a free-threaded PYTHON
	$(MAKE) install TOKENGATE_SANITIZE=address TEST_EXTRA=test-core VENV=$(VENV)-address
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so)" ASAN_OPTIONS=detect_leaks=0 \
		$(VENV)-address/bin/pytest tests/stress $(PYTEST_ARGS)

sdist: dist/$(SDIST) ## dist/*.tar.gz

wheel: dist/$(SDIST) ## dist/*.whl, built from the sdist
	$(PIP) wheel --quiet --no-deps --wheel-dir dist $<

install: $(STAMPS)/package $(STAMPS)/with-$(TEST_EXTRA) ## the environment of the tests, without running them

env: $(STAMPS)/env ## an empty environment

clean: ## remove what was built, and all environments
	rm -rf build dist *.egg-info .venv .venv-* .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find tokengate bench demo tests -name __pycache__ -prune -exec rm -rf {} +
	rm -f tokengate/*.so

$(STAMPS)/env:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "TokenGate needs Python 3.11 or newer: name one, as in make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear $(VENV)
	$(INSTALL) --upgrade pip build
	@mkdir -p $(STAMPS) && touch $@

# Two: the one in dist/ is complete; the one the wheel for the tests is made from is not renewed when
# only a test changes.
dist/$(SDIST): $(PACKED)
build/sdist/$(SDIST): $(BUILT_FROM)
dist/$(SDIST) build/sdist/$(SDIST): | $(STAMPS)/env
	@mkdir -p build
	$(BIN)/python -m build --sdist --outdir $(@D) . > build/sdist.log 2>&1 || { cat build/sdist.log; exit 1; }

$(STAMPS)/wheel: build/sdist/$(SDIST)
	rm -rf $(VENV)/wheel
	$(PIP) wheel --quiet --no-deps --wheel-dir $(VENV)/wheel $<
	@touch $@

$(STAMPS)/package: $(STAMPS)/wheel
	$(INSTALL) --force-reinstall --no-deps $(VENV)/wheel/*.whl
	$(INSTALL) $(VENV)/wheel/*.whl
	@touch $@

# One stamp per extra. pip leaves the package itself alone: it is installed already.
$(STAMPS)/with-%: pyproject.toml | $(STAMPS)/package
	$(INSTALL) $(EXTRA_PIP) "$$(echo $(VENV)/wheel/*.whl)[$*]"
	@touch $@
