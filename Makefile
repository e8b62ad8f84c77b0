# Everything a developer runs. Needs make and Python 3.11 or newer; the rest is installed into .venv.

VENV      := .venv
BIN       := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# The first of these that is new enough makes the environment; name another: make PYTHON=... test
PYTHON     ?=
PYTHONS    := $(PYTHON) python3 python3.11 python3.12 python3.13 python3.14 python
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

ARGS      ?=
INPUT     ?=
AGREEMENT ?=
SECONDS   ?= 60
ROUNDS    ?= 20
PROCESSES ?= 2
SEEDS     ?= 2000
STATES    ?= 1000000
BOTH      := raft paxos

TYPED := replog raftlog paxoslog transport tests .ci/check_wheel.py $(wildcard benchmarks examples)

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types fix chaos nemesis rounds simulate explore connectivity planted bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(INSTALLED) ## a cluster on this machine loses its leader and nothing else; INPUT=file AGREEMENT=raft ARGS=
	@$(BIN)/replog demo $(if $(INPUT),--input '$(INPUT)') $(if $(AGREEMENT),--agreement '$(AGREEMENT)') $(ARGS)

test: $(INSTALLED) ## run the tests; ARGS='-k store -x', PROCESSES=0 for all in one
	$(BIN)/python -m pytest -q --numprocesses=$(PROCESSES) --dist=loadfile --no-loadscope-reorder $(ARGS)

check: lint types ## all that is checked without running the code

lint: $(INSTALLED) ## look for faults of style and form
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED) ## check the types
	$(BIN)/mypy $(TYPED)

fix: $(INSTALLED) ## repair what the linter can, and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

chaos: $(INSTALLED) ## torment a cluster of real processes; SECONDS=60 AGREEMENT=raft
	$(BIN)/python -m pytest tests/cluster/test_chaos.py -s --chaos-seconds=$(SECONDS) \
	    --timeout=$$(($(SECONDS) + 120)) $(if $(AGREEMENT),--agreement='$(AGREEMENT)') $(ARGS)

nemesis: $(INSTALLED) ## the same with cut links and failing disks as well; SECONDS=60 AGREEMENT=raft
	$(BIN)/python -m pytest tests/cluster/test_nemesis.py -s --nemesis-seconds=$(SECONDS) \
	    --timeout=$$(($(SECONDS) + 180)) $(if $(AGREEMENT),--agreement='$(AGREEMENT)') $(ARGS)

rounds: $(INSTALLED) ## leave killed nodes behind what the others drop; ROUNDS=20 AGREEMENT=raft
	$(BIN)/python -m pytest tests/cluster/test_snapshot_rounds.py -s --snapshot-rounds=$(ROUNDS) \
	    --timeout=$$((15 * $(ROUNDS) + 120)) $(if $(AGREEMENT),--agreement='$(AGREEMENT)') $(ARGS)

simulate: $(INSTALLED) ## run the simulator on many seeds; SEEDS=2000 AGREEMENT=raft, else both
	set -e; for agreement in $(or $(AGREEMENT),$(BOTH)); do \
	    $(BIN)/python -m replog.testing --agreement $$agreement --seeds $(SEEDS) --processes 2 $(ARGS); \
	done

explore: $(INSTALLED) ## try every order of events on three cores; STATES=1000000 AGREEMENT=raft, else both
	set -e; for agreement in $(or $(AGREEMENT),$(BOTH)); do \
	    $(BIN)/python -m replog.testing.exploration --agreement $$agreement --states $(STATES) $(ARGS); \
	done

connectivity: $(INSTALLED) ## what a partly connected cluster still does, how soon; AGREEMENT=raft, else both
	$(BIN)/python -m replog.testing.connectivity $(if $(AGREEMENT),--agreement '$(AGREEMENT)') $(ARGS)

planted: $(INSTALLED) ## plant bugs one at a time and look for each; SEEDS=2000
	$(BIN)/python -m tests.planted --seeds $(SEEDS) --processes 2 $(ARGS)

bench: $(INSTALLED) ## measure; AGREEMENT=raft ARGS='latency --seconds 2', ARGS=agreements
	$(BIN)/python -m benchmarks $(if $(AGREEMENT),--agreement '$(AGREEMENT)') $(ARGS)

clean: ## remove what tools left behind, but not the environment
	rm -rf build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# An environment made by hand is kept when its Python is new enough.
$(INSTALLED): pyproject.toml
	@printf 'installing into $(VENV), once ... '; set -e; \
	if ! $(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null; then \
	    for python in $(PYTHONS) none; do \
	        if $$python -c '$(NEW_ENOUGH)' 2>/dev/null; then break; fi; \
	    done; \
	    if [ $$python = none ]; then echo 'no Python 3.11 or newer was found' >&2; exit 1; fi; \
	    $$python -m venv --clear $(VENV); \
	fi; \
	$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[dev]'; \
	touch $@; echo done
