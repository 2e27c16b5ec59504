# `make` lists the targets. One virtual environment, .venv, holds everything.
BIN := .venv/bin
STAMP := .venv/.stamp
ARGS ?= # extra arguments of the command, for example make test ARGS="-k render"

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint typecheck docs bench reproduce clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## create .venv, install robolearn and the headless GL libraries

demo: $(STAMP) ## record, train, evaluate and report, end to end
	$(BIN)/robolearn demo $(ARGS)

test: $(STAMP) ## run the tests: on all cores, then those that need the machine to themselves
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not realtime" $(ARGS) || [ $$? -eq 5 ]
	$(BIN)/python -m pytest -m realtime $(ARGS) || [ $$? -eq 5 ]

lint: $(STAMP) ## check style and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

typecheck: $(STAMP) ## check types
	$(BIN)/mypy

docs: $(STAMP) ## rewrite the tables of README and docs from docs/results
	$(BIN)/python -m robolearn.docs

bench: $(STAMP) ## measure the speeds that docs/results/speed.json holds
	$(BIN)/robolearn bench $(ARGS)

reproduce: $(STAMP) ## measure again what README says, and print what moved (hours)
	$(BIN)/robolearn reproduce $(ARGS)

clean: ## remove build products and caches; keep .venv, runs and data
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis MUJOCO_LOG.TXT
	find robolearn envs policies hardware assets tests -name __pycache__ -exec rm -rf {} +

# An environment that is too old or half made is made anew.
$(STAMP): pyproject.toml constraints.txt
	@test -d robolearn/envs/ || { echo "robolearn/envs is not a link:" \
	    "check out with git config core.symlinks true, on Windows inside WSL" >&2; exit 1; }
	@$(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null || \
	    { python=$$(.ci/find-python) && "$$python" -m venv --clear .venv; }
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@.ci/gl $(BIN)/python
	@touch $@
