# culvert: what people and CI run. `make help` lists it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.culvert-ready
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test lint faults bench image cluster lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## the whole path on a real cluster: helm install, a Tunnel, a visitor's request
	$(BIN)/python hack/demo/demo.py

test: $(READY) ## every test; those that need a cluster are skipped with a reason when there is none
	$(BIN)/pytest -n $(WORKERS) --dist loadgroup $(ARGS)

lint: $(READY) ## format, lint, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

faults: $(READY) ## at length what `make test` samples: soak (SEED=7), GiBs, fault plans, 100 mutations, 1,000 bindings
	CULVERT_SOAK_SECONDS=300 CULVERT_SOAK_SEED=$(or $(SEED),1) $(BIN)/pytest -n 0 tests/tunnel/faults/test_soak.py
	CULVERT_WHOLE_NUMBERS=1 $(BIN)/pytest -n 0 tests/tunnel/test_bytes.py tests/tunnel/test_tcp.py \
	  tests/tunnel/test_failover.py -k 'a15_ or a_large_transfer or a1_kill'
	CULVERT_FAULT_PLANS=all CULVERT_MUTATIONS=100 $(BIN)/pytest -n 0 -s tests/cluster/test_fault_plans.py \
	  tests/cluster/test_mutations.py $(ARGS)
	CULVERT_SCALE_BINDINGS=1000 $(BIN)/pytest -n 0 tests/cluster/test_operator_scale.py

bench: $(READY) ## requests, bulk, memory, 1,000 tunnels, trouble, slow visitors against nginx's two hops; the operator
	$(BIN)/python -m bench.requests $(ARGS)
	$(BIN)/python -m bench.streams
	$(BIN)/python -m bench.rows
	$(BIN)/python -m bench.operator_scale

image: ## build the container image localhost/culvert:dev with docker or buildah (NATIVE=1: hot modules compiled)
	hack/image/build --tag localhost/culvert:dev --archive .demo/culvert.tar $(if $(filter 1,$(NATIVE)),--native)

cluster: ## start a real single-node Kubernetes on this machine (`hack/cluster/cluster down` ends it)
	hack/cluster/cluster up

lock: $(READY) ## write requirements/*.txt anew from pyproject.toml
	$(BIN)/uv pip compile -q --generate-hashes --universal --no-annotate --no-header --upgrade \
	  --extra all --group dev pyproject.toml -o requirements/dev.txt
	$(BIN)/uv pip compile -q --generate-hashes --universal --no-annotate --no-header --upgrade \
	  --extra all --group build pyproject.toml -o requirements/image.txt
	$(BIN)/uv pip compile -q --generate-hashes --universal --no-annotate --no-header --upgrade \
	  -c requirements/dev.txt --extra native pyproject.toml -o requirements/native.txt

clean: ## remove what the other targets made here (caches outside this folder stay)
	rm -rf $(VENV) .demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis bench/results
	$(PYTHON) hack/native/build.py --clean

$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "culvert needs Python 3.11 or newer; say which with make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing the locked dependencies"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
