# The same targets serve people and CI. Everything is installed into .venv, without root.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
AUDIT := .venv-audit
ARGS ?=

.PHONY: help install demo test format lint types imports definitions unit bench soak sbom audit lock clean

# Before the others: `make` alone explains itself and installs nothing.
help:
	@echo "make demo      a pretend platform, one record broken and repaired; ARGS=--once leaves after it"
	@echo "make install   the controller into $(VENV); then $(BIN)/zlh --help"
	@echo "make test      all checks and tests; make unit ARGS=tests/core runs some"
	@echo "make bench     what it costs; ARGS=\"compare loop\" runs some"
	@echo "make soak      the loop under faults at random; ARGS=\"--seed 7 --minutes 60\""
	@echo "docs/development.md has the others"

install: $(VENV)/.runtime

demo: install
	@$(BIN)/python -m zlh_dagster.cli.demo $(ARGS)

test: $(VENV)/.dev lint types imports definitions unit

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

imports: $(VENV)/.dev
	$(BIN)/lint-imports

definitions: $(VENV)/.dev
	@home=$$(mktemp -d) && cp dagster.yaml $$home/ && \
	  DAGSTER_HOME=$$home $(BIN)/dagster definitions validate -w workspace.yaml; \
	  status=$$?; rm -rf $$home; exit $$status

# Three at a time on two cores: beside two, one after the other those of whole deployments, which
# mostly wait. What is marked `long` takes minutes more: make unit ARGS="-m long".
unit: $(VENV)/.dev
ifdef ARGS
	$(BIN)/pytest $(ARGS)
else
	$(BIN)/pytest -n 3 --dist loadgroup -m "not long"
endif

# All of them take eleven minutes to a quarter of an hour; ARGS="compare octodns" runs some.
bench: $(VENV)/.bench
	@$(BIN)/python -m bench $(ARGS)

# Faults at random, for 20 minutes unless ARGS="--seed 7 --minutes 60" says otherwise.
soak: $(VENV)/.dev
	@$(BIN)/python -m tests.faults.soak $(ARGS)

# Needs `uv` on the path. The locks carry versions and hashes for Python 3.10 to 3.12, no addresses.
LOCK := uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-header \
  --no-annotate --no-strip-extras --no-emit-index-url --extra build pyproject.toml

lock:
	$(LOCK) -o requirements.lock >/dev/null
	$(LOCK) --extra kubernetes -c requirements.lock -o requirements-kubernetes.lock >/dev/null
	$(LOCK) --extra dev --extra kubernetes -c requirements-kubernetes.lock \
	  -o requirements-dev.lock >/dev/null
	$(LOCK) --extra dev --extra kubernetes --extra bench -c requirements-dev.lock \
	  -o requirements-bench.lock >/dev/null
	$(LOCK) --extra audit -o requirements-audit.lock >/dev/null

# What is installed to run the controller, as CycloneDX, and known holes in it. The tools have an
# environment of their own: the one below is what is described.
sbom: $(AUDIT)/.audit
	$(AUDIT)/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
	  --output-file sbom.json requirements.lock
	@echo "sbom.json: $$(grep -c '"bom-ref": "requirements' sbom.json) packages"

audit: $(AUDIT)/.audit
	$(AUDIT)/bin/pip-audit --require-hashes --disable-pip --requirement requirements.lock

clean:
	rm -rf $(VENV) $(AUDIT) .zlh-demo sbom.json

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || { \
	  echo "Python 3.10 to 3.12 is needed; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "creating $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "the venv module is missing; on Debian: apt install python3-venv" >&2; exit 1; }

$(VENV)/.runtime: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "installing pinned dependencies (a minute or two) ..."
	@$(BIN)/python scripts/install.py requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  --no-build-isolation --no-index -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	@echo "installing pinned development tools ..."
	@$(BIN)/python scripts/install.py requirements-dev.lock
	@touch $@

$(AUDIT)/.audit: requirements-audit.lock
	@$(PYTHON) -m venv $(AUDIT)
	@echo "installing what describes and audits ..."
	@$(AUDIT)/bin/python scripts/install.py requirements-audit.lock
	@touch $@

$(VENV)/.bench: requirements-bench.lock $(VENV)/.dev
	@echo "installing what only benchmarks need ..."
	@$(BIN)/python scripts/install.py requirements-bench.lock
	@touch $@
