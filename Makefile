# Two commands matter on a fresh machine: `make demo` and `make test`. Both need only python3 and make.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

# The tests start hundreds of processes: none of them shall compile the whole source again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint types contracts coverage bench neighbours soak conformance picture classify programs clean check

demo: .venv/run
	$(BIN)/okayed demo

# make test COVERAGE=1 also measures the coverage, at twice the processor time; CI does.
MEASURED := $(if $(COVERAGE),coverage)

test: .venv/test programs
	$(if $(MEASURED),$(BIN)/coverage erase)
	$(BIN)/$(if $(MEASURED),coverage run,python) -m pytest -n 3 --dist loadfile --no-loadscope-reorder
	$(MAKE) --no-print-directory check $(MEASURED)

# Everything that runs no test.
check: lint types contracts

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/test
	$(BIN)/mypy

contracts: .venv/test
	$(BIN)/lint-imports

coverage: .venv/test
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=95

bench: .venv/test
	$(BIN)/python bench/calls.py

# What one agent's worst, or a stranger's, costs the others.
neighbours: .venv/test
	$(BIN)/python bench/neighbours.py

# The protocol's own suite, past the gateway and through it: prints the table of docs/protocol.md, and each difference.
conformance: .venv/test
	$(BIN)/python tests/fakes/conformance.py

# Retakes docs/inbox.png; needs Chromium.
picture: .venv/test
	$(BIN)/python tests/fakes/picture.py

# Slow rings: kill -9 for minutes, deep property runs, every client with its own timers.
soak: .venv/test
	OKAYED_SOAK=500 HYPOTHESIS_PROFILE=deep $(BIN)/python -m pytest tests/e2e/test_kill9_store.py tests/approvals/test_service_machine.py tests/e2e/test_intentions.py

# make classify DATA=tools.jsonl
classify: .venv/test
	$(BIN)/python bench/classify.py $(DATA)

# Chromium and nginx for the end-to-end tests, from Debian's packages, when they are missing and may be installed.
programs:
	@wanted=""; \
	 command -v chromium google-chrome >/dev/null || wanted="chromium"; \
	 PATH="$$PATH:/usr/sbin" command -v nginx >/dev/null || wanted="$$wanted nginx-light"; \
	 [ -z "$$wanted" ] || \
	 { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
	   DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$wanted >/dev/null; } || \
	 echo "Not here, and not to be installed: $$wanted. The tests that need them will be skipped."

.venv/run: pyproject.toml constraints.txt
	[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	$(PIP) --editable .
	@touch $@

.venv/test: pyproject.toml constraints.txt
	[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	$(PIP) --editable ".[test,fast]"
	$(BIN)/python tests/fakes/peers.py
	@touch $@ .venv/run

clean:
	rm -rf .venv .venv-* build dist *.egg-info .coverage*
