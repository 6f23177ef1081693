# All set-up comes from package registries and is kept in $XDG_CACHE_HOME/modelrollout
# (default ~/.cache/modelrollout): the first run is slow, the next ones are not.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/modelrollout
# A virtual environment holds dependencies only, so that all checkouts with the same pins share it.
VENV := $(CACHE)/venv-$(shell $(PYTHON) scripts/requirements.py --digest dev)
VENV_FULL := $(CACHE)/venv-full-$(shell $(PYTHON) scripts/requirements.py --digest)
VENV_BENCHMARKS = $(CACHE)/venv-benchmarks-$(shell $(PYTHON) scripts/requirements.py --digest benchmarks)
export PYTHONPATH := operator:inference_image:.
export PYTHONDONTWRITEBYTECODE := 1
PYTEST_ARGS ?=
BENCHMARK_ARGS ?=

.PHONY: help demo demo-down test test-unit test-cluster test-node lint format crd benchmarks benchmark-serving venv venv-full venv-path venv-full-path cluster-up cluster-down

help:  ## Show this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

demo: venv  ## Bring up a real cluster and show promotions and roll-backs on it.
	@$(VENV)/bin/python -m examples.demo

demo-down: venv  ## End the demo's cluster.
	@$(VENV)/bin/python -m tests.cluster down --name demo

test: lint test-unit test-cluster test-node  ## Everything: lint, then all layers of tests.

test-unit: venv-full  ## Unit tests: no root, no cluster.
	@$(VENV_FULL)/bin/python -m pytest tests/unit $(PYTEST_ARGS)

test-cluster: venv-full  ## Tests against a real etcd and kube-apiserver: no root, no node.
	@$(VENV_FULL)/bin/python -m pytest -m cluster $(PYTEST_ARGS)

test-node: venv-full  ## Tests on the single-node cluster (root): real pods, real Prometheus.
	@$(VENV_FULL)/bin/python -m pytest -m node $(PYTEST_ARGS)

lint: venv-full  ## ruff, mypy --strict, layers, drift of the CRD, no loose .py in operator/.
	@$(VENV_FULL)/bin/ruff check .
	@$(VENV_FULL)/bin/ruff format --check .
	@$(VENV_FULL)/bin/mypy operator inference_image tests examples benchmarks
	@PATH="$(VENV_FULL)/bin:$$PATH" lint-imports
	@$(VENV_FULL)/bin/python -m modelrollout crd | diff -u crds/modelrollouts.modelrollout.dev.yaml - \
	  || { echo "crds/ is not what the types say: run 'make crd'"; exit 1; }
	@test -z "$$(ls operator/*.py 2>/dev/null)" \
	  || { echo "a .py directly in operator/ shadows the standard library"; exit 1; }

format: venv-full  ## Let ruff mend what it can.
	@$(VENV_FULL)/bin/ruff check --fix .
	@$(VENV_FULL)/bin/ruff format .

crd: venv  ## Write crds/ and the chart's copy from the types.
	@$(VENV)/bin/python -m modelrollout crd > crds/modelrollouts.modelrollout.dev.yaml
	@cp crds/modelrollouts.modelrollout.dev.yaml helm/modelrollout/files/crds/

benchmarks:  ## Simulate the decision engine: tables and plots of docs/statistics.md (15 minutes; BENCHMARK_ARGS=--quick: seconds).
	@scripts/venv.sh $(PYTHON) $(VENV_BENCHMARKS) benchmarks
	@$(VENV_BENCHMARKS)/bin/python -m benchmarks $(BENCHMARK_ARGS)

benchmark-serving: venv-full  ## Measure the inference server on this machine (minutes; BENCHMARK_ARGS=--quick: fewer).
	@$(VENV_FULL)/bin/python -m benchmarks.serving $(BENCHMARK_ARGS)

venv: $(VENV)/.complete
venv-full: $(VENV_FULL)/.complete

$(VENV)/.complete:
	@scripts/venv.sh $(PYTHON) $(VENV) dev

$(VENV_FULL)/.complete:
	@scripts/venv.sh $(PYTHON) $(VENV_FULL) dev,inference,quality

venv-path: ; @echo $(VENV)
venv-full-path: ; @echo $(VENV_FULL)

cluster-up: venv  ## Bring up a cluster to try things on (named 'dev').
	@$(VENV)/bin/python -m tests.cluster up --name dev

cluster-down: venv  ## End it.
	@$(VENV)/bin/python -m tests.cluster down --name dev
