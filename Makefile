# Everything one does here, one command each. The first of them makes .venv, with Python >= 3.11.
#
#   make demo     summarize a recording of ours      make check    style, types, imports, docs
#   make test     the tests                          make bench    the budgets, against the peers
#   make docs     generate what docs/ can generate   make clean    remove what all of these made
#   make coverage the tests, and what they ran

PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
PYTEST_ARGS ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SAMPLE := samples/gpt2-xl-ctx256-h200/run.sqlite.gz
SMALL := samples/gpt2-small-ctx512-bf16-h200

.DELETE_ON_ERROR:
.PHONY: demo test coverage check bench docs clean
.PHONY: check-format check-lint check-types check-pyright check-imports check-spelling check-docs

demo: .venv/.package
	$(BIN)/tracelens summarize $(SAMPLE)
	@echo
	@echo "Try next:"
	@echo "  $(BIN)/tracelens summarize $(SAMPLE) --phase backward"
	@echo "  $(BIN)/tracelens summarize $(SAMPLE) --table kernels --format markdown"
	@echo "  $(BIN)/tracelens summarize $(SMALL)/trace.json.gz --table ops"
	@echo "  $(BIN)/tracelens memory $(SMALL)/memory.pickle.gz"
	@echo "  $(BIN)/tracelens summarize samples/gpt2-medium-ddp-h200x2"
	@echo "  $(BIN)/tracelens roofline samples/capture-gpt2-xl-ctx256-h200 --ceilings samples/ceilings-h200.json"
	@echo "  $(BIN)/tracelens report samples/capture-gpt2-xl-ctx256-h200 -o report.html"
	@echo "  $(BIN)/tracelens bench matmul --show samples/kernels-h200.json.gz"
	@echo "  $(BIN)/tracelens summarize YOUR.sqlite    (nsys export --type sqlite YOUR.nsys-rep)"
	@echo "  $(BIN)/tracelens list workloads           (to record them: $(BIN)/pip install -e '.[capture]')"
	@echo "  $(BIN)/tracelens explore samples          (first: $(BIN)/pip install -e '.[explore]')"
	@echo "  $(BIN)/tracelens --help"

test: .venv/.test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

coverage: .venv/.test
	$(BIN)/python -m pytest -n auto --cov --cov-report=term:skip-covered $(PYTEST_ARGS)

# `make -k check` goes on after a failure.
check: check-format check-lint check-types check-pyright check-imports check-spelling check-docs

check-format: .venv/.check
	$(BIN)/ruff format --check

check-lint: .venv/.check
	$(BIN)/ruff check

check-types: .venv/.check
	$(BIN)/mypy
	$(BIN)/mypy --explicit-package-bases tests/build.py .ci/skips.py

# pyright is a node program that its Python package fetches when it first runs.
check-pyright: .venv/.check
	@if PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --version >/dev/null 2>&1; \
	then echo $(BIN)/pyright; PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python; \
	else echo "check-pyright: skipped, pyright cannot fetch its node program on this machine"; fi

check-imports: .venv/.check
	$(BIN)/lint-imports

check-spelling: .venv/.check
	$(BIN)/codespell

check-docs: .venv/.check
	$(BIN)/python docs/generate.py --check

docs: .venv/.check
	$(BIN)/python docs/generate.py

bench: .venv/.test
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build dist .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What is installed follows pyproject.toml; dependency groups need pip >= 25.1.
.venv/.package: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, with its venv module" \
	"(Debian: apt-get install python3-venv). Elsewhere: make PYTHON=/path/to/python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install --upgrade 'pip>=25.1'
	$(PIP) install --editable .
	@touch $@

.venv/.test .venv/.check: .venv/.%: .venv/.package
	$(PIP) install --group $*
	@touch $@
