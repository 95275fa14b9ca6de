# The whole contributor path: `make setup check test`. Needs Python 3.11 or 3.12 with venv, and pip; nothing else by hand.
# Variables:  PYTHON=python3.12   PIP_ARGS='...' (more arguments for pip)   INPUT=clip.mp4 KEEP=1 PORT=8000 (demo)
#             TESTS='tests/core -k sphere' (test)

VENV      := .venv
BIN       := $(VENV)/bin
STAMP     := $(VENV)/.installed
EXTRAS    := core,service,worker,train,postgres,dev,deploy
PIP_ARGS  ?=
TESTS     ?=
INPUT     ?=
PORT      ?=
KEEP      ?=
SETUP     ?= embedded
SECONDS   ?= 1800

# A tensor library that starts more threads than there are cores waits for itself.
CORES     := $(shell n=$$(nproc 2>/dev/null || echo 2); [ "$$n" -gt 4 ] && n=4; echo $$n)
export OMP_NUM_THREADS ?= $(CORES)
export OPENBLAS_NUM_THREADS ?= $(CORES)

.DEFAULT_GOAL := help
.PHONY: help setup check test demo openapi chaos fuzz release-check clean

help:  ## say what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

setup: $(STAMP)  ## make the private environment in .venv (does nothing when it is up to date)

$(STAMP): pyproject.toml constraints.txt scripts/setup.sh
	@bash scripts/setup.sh "$(VENV)" "$(EXTRAS)" $(PIP_ARGS)
	@touch $@

check: setup  ## lint, types and import directions
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: setup  ## the whole test suite; CI calls exactly this
	$(BIN)/python -m pytest -q $(TESTS)

demo: setup  ## one clip through the real service to meshes and codes (INPUT=clip.mp4, KEEP=1, PORT=8000)
	@$(BIN)/mononphm demo $(if $(INPUT),--input "$(INPUT)") $(if $(PORT),--port "$(PORT)") $(if $(filter-out 0 no false,$(KEEP)),--keep)

chaos: setup  ## kill everything at random for SECONDS and count what was lost (SETUP=embedded|sqlite-redis|postgres-redis)
	$(BIN)/python -m tests.chaos.run --setup $(SETUP) --seconds $(SECONDS) --out benchmarks/results

fuzz: setup  ## for SECONDS each: damaged media to the decoder, hostile uploads and generated requests to a real service
	$(BIN)/python -m tests.fuzz.decoder --seconds $(SECONDS)
	$(BIN)/python -m tests.fuzz.uploads --seconds $(SECONDS) --out benchmarks/results
	$(BIN)/python -m tests.fuzz.run --seconds $(SECONDS) --out benchmarks/results

openapi: setup  ## write openapi/openapi.json from the routes
	$(BIN)/python -m service.openapi

release-check: setup  ## what a release must pass: known vulnerabilities, licences, bill of materials (into build/release)
	bash scripts/release_check.sh $(VENV) build/release

clean:  ## remove the environment, caches and build left-overs (never your data)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
