# Thin lines over `iranker …` and pytest. Every verb sets itself up (.venv in the project).
#   make train-tiny [DATA=folder-of-raw-files [TIME=minutes]] [TASK=rec-movie] [RUN=runs/name] [ARGS="trainer.total_training_steps=50"]
#   make train-3b MODEL=folder DATA=folder [CLUSTER=8x80] [GPUS=8] [NODES=1] [ARGS=…] [DRY_RUN=1]

PYTHON ?= python3.11
VENV   ?= .venv
# the stack that is installed stays, unless another is asked for
STACK  ?= $(or $(lastword $(subst -, ,$(shell cat '$(VENV)/.installed' 2>/dev/null))),cpu)
BIN    := $(VENV)/bin
ARGS   ?=
SEED   ?= 1

comma := ,
data_args = $(if $(DATA),'iranker.data.raw=$(DATA)') $(if $(TASK),'iranker.data.tasks=[$(TASK)]')
time_arg  = $(if $(TIME),iranker.minutes=$(TIME))
run_args  = $(if $(RUN),'iranker.run_dir=$(RUN)') $(if $(filter-out 1,$(SEED)),iranker.seed=$(SEED))
cluster_args = $(if $(CLUSTER),'cluster=$(CLUSTER)') $(if $(GPUS),'trainer.n_gpus_per_node=$(GPUS)') $(if $(NODES),'trainer.nnodes=$(NODES)')
model_arg = $(if $(MODEL),'actor_rollout_ref.model.path=$(MODEL)')
dry_run   = $(if $(DRY_RUN),--dry-run)
# rows of real data are longer than the embedded world's, so they have a recipe of their own
tiny      = recipes/tiny_cpu/$(if $(DATA),real_data,tiny_cpu).yaml

# plans a recipe for GPUs, and starts it if it fits
define planned
@$(BIN)/iranker plan $(1) $(cluster_args) $(data_args) $(run_args) $(model_arg) $(ARGS)
@$(BIN)/iranker train $(1) $(dry_run) $(cluster_args) $(data_args) $(run_args) $(model_arg) $(ARGS)
endef

.DEFAULT_GOAL := help
.PHONY: help setup data reproduce train-tiny train-3b train-dranker-3b zero-shot submit smoke evaluate serve test test-fast lint supply-chain bench bench-learning bench-cluster doctor clean

help:            ## this list
	@grep -hE '^[a-z0-9-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):[^#]*## ?/  make \1	/' | expand -t 24

setup:           ## install into .venv (idempotent)
	@PYTHON=$(PYTHON) FLASH_ATTN='$(FLASH_ATTN)' requirements/install.sh $(VENV) $(STACK)

train-tiny: setup ## the whole pipeline on a CPU, 15 to 20 minutes: a report in runs/tiny
	@$(BIN)/iranker train $(tiny) $(dry_run) $(data_args) $(time_arg) $(run_args) $(ARGS)

train-3b: setup  ## IRanker-3B as published, on GPUs, where it fits (CLUSTER=8x80, GPUS=8, NODES=1; DRY_RUN=1 shows the plan anywhere)
	$(call planned,recipes/iranker_3b)

train-dranker-3b: setup ## DRanker-3B, the one-shot baseline, on GPUs
	$(call planned,recipes/dranker_3b)

zero-shot: setup ## leave a scenario out, test on it: all three in turn, or SCENARIO (rec, router, passage); MODEL= DATA= for 3B
	@MODEL='$(MODEL)' DATA='$(DATA)' RUN='$(RUN)' recipes/zero_shot/run.sh $(or $(SCENARIO),all) $(dry_run) $(if $(filter-out 1,$(SEED)),iranker.seed=$(SEED)) $(ARGS)

submit: setup    ## RECIPE to the Ray head at RAY_ADDRESS; RUN is an absolute shared folder
	@recipes/cluster/submit.sh '$(RECIPE)' $(dry_run) $(cluster_args) $(data_args) $(run_args) $(model_arg) $(ARGS)

smoke: setup     ## the whole pipeline with two RL steps
	@$(BIN)/iranker train recipes/tiny_cpu/smoke.yaml $(run_args) $(ARGS)

data: setup      ## prepare all raw files in DATA (default data/raw) into OUT (default data/prepared)
	@$(BIN)/iranker prepare --raw '$(or $(DATA),data/raw)' --out '$(or $(OUT),data/prepared)' $(if $(TASK),--task $(TASK)) $(ARGS)

evaluate: setup  ## rank the test tasks of DATA=prepared-folder with MODEL=folder, into OUT=folder
	@$(BIN)/iranker evaluate $(if $(MODEL),--model '$(MODEL)') $(if $(DATA),--data '$(DATA)') $(if $(OUT),--out '$(OUT)') $(ARGS)

reproduce: setup ## the paper's words beside its public code, switch by switch, on the raw files in DATA, into OUT=folder
	@$(BIN)/iranker reproduce --raw '$(or $(DATA),data/raw)' --out '$(or $(OUT),runs/reproduction)' $(if $(TASK),--task $(TASK)) $(if $(MODEL),--model '$(MODEL)') $(ARGS)

serve: setup     ## /v1/rerank with MODEL=folder (docs/serving.md)
	@$(BIN)/iranker serve --model '$(or $(MODEL),runs/tiny/model)' $(ARGS)

test: setup      ## all tests, end-to-end ones included
	@$(BIN)/python -m pytest $(ARGS)

test-fast: setup ## the tests that need neither Ray nor vLLM
	@$(BIN)/python -m pytest -m "not slow" $(ARGS)

lint: setup      ## ruff, mypy, and which way imports go
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

supply-chain: setup ## build/supply-chain: a bill of materials (CycloneDX), licences, known vulnerabilities
	@$(BIN)/python requirements/supply_chain.py $(VENV) $(STACK) build/supply-chain

bench: setup     ## speed, side by side (benchmarks/)
	@$(BIN)/python -m benchmarks.rl_step
	@$(BIN)/python -m benchmarks.driver_step
	@$(BIN)/python -m benchmarks.data_prep
	@$(BIN)/python -m benchmarks.reward
	@$(BIN)/python -m benchmarks.evaluation
	@$(BIN)/python -m benchmarks.serving
	@$(BIN)/python -m benchmarks.plan_memory

bench-learning: setup ## which algorithm teaches better at equal LLM tokens: all of them, seeds 1, 2 and 3 (hours)
	@$(BIN)/python -m benchmarks.learning $(ARGS)

bench-cluster: setup ## what a run does when a part of it dies, the disk is full or SIGTERM comes: ten faults, a minute or two each
	@$(BIN)/python -m benchmarks.cluster_faults $(ARGS)

doctor: setup    ## what is installed, which platform, and whether the tiny recipe fits this machine
	@$(BIN)/iranker doctor recipes/tiny_cpu

clean:           ## remove caches, keep runs and .venv
	@rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
