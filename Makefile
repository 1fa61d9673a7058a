# On a fresh machine run `make demo` or `make test`. Both need only python3 and make.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

# The tests start hundreds of processes, which reuse the compiled source.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint types contracts coverage bench hot neighbours growth soak conformance screenshot classify programs clean check

demo: .venv/run
	$(BIN)/okayed demo

# Three workers keep two cores busy: many tests wait for another program.
# make test COVERAGE=1, as CI runs it, also measures the coverage, at twice the processor time.
MEASURED := $(if $(COVERAGE),coverage)

test: .venv/test programs
	$(if $(MEASURED),$(BIN)/coverage erase)
	$(BIN)/$(if $(MEASURED),coverage run,python) -m pytest -n 3 --dist loadfile --no-loadscope-reorder
	$(MAKE) --no-print-directory check $(MEASURED)

# All checks except the tests.
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

# Calls and holds beside nginx, a bare aiohttp relay and FastMCP's proxy. make bench SSE=1 MODERN=1 for the other forms.
bench: .venv/test
	$(BIN)/python bench/calls.py $(if $(SSE),--sse) $(if $(MODERN),--modern)
	$(BIN)/python bench/holds.py

# The processor time of an allowed call against that of a bare aiohttp relay; fails above the bound.
hot: .venv/test
	$(BIN)/python bench/hot.py --fail-above 0.45

# How attacks by one agent or an outsider slow down the others.
neighbours: .venv/test
	$(BIN)/python bench/neighbours.py

# A store with a long history: opening it, pages, holds, the log. make growth STORE=FILE keeps the filled store in FILE.
growth: .venv/test
	$(BIN)/python bench/growth.py $(if $(STORE),--store $(STORE))

# The MCP conformance suite, directly and through the gateway; prints the table of docs/protocol.md and each difference.
conformance: .venv/test
	$(BIN)/python tests/fakes/conformance.py

# Retakes docs/inbox.png; needs Chromium.
screenshot: .venv/test
	$(BIN)/python tests/fakes/screenshot.py

# Slow tests: kill -9 and random runs for minutes, deep property runs, every client with its own timers.
soak: .venv/test
	OKAYED_SOAK=500 HYPOTHESIS_PROFILE=deep $(BIN)/python -m pytest --timeout=0 tests/e2e/test_kill9_store.py tests/e2e/test_kill9_gateway.py tests/e2e/test_two_gateways.py tests/approvals/test_service_machine.py tests/approvals/test_two_services.py tests/e2e/test_model_requests.py

# make classify DATA=tools.jsonl
classify: .venv/test
	$(BIN)/python bench/classify.py $(DATA)

# Installs Debian's Chromium and nginx for the end-to-end tests if they are missing and this user may install them.
programs:
	@wanted=""; \
	 command -v chromium google-chrome >/dev/null || wanted="chromium"; \
	 PATH="$$PATH:/usr/sbin" command -v nginx >/dev/null || wanted="$$wanted nginx-light"; \
	 [ -z "$$wanted" ] || \
	 { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
	   DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$wanted >/dev/null; } || \
	 echo "Missing and not installable by this user: $$wanted. The tests that need them are skipped."

.venv/run: pyproject.toml constraints.txt
	[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	$(PIP) --editable .
	@touch $@

.venv/test: pyproject.toml constraints.txt
	[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	$(PIP) --editable ".[test]"
	$(BIN)/python tests/fakes/third_party.py
	@touch $@ .venv/run

clean:
	rm -rf .venv .venv-* build dist *.egg-info .coverage*
