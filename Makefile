# make demo    asks the bundled model about one image of each kind
# make test    the tests (under ten minutes on two cores)
#
# make setup-ci   also installs the optional packages without which some tests are skipped (.ci/run runs all of them)
#
# make nano    trains the bundled model again, from scratch (about seventeen hours on two cores)
#
# Each of them first makes .venv. Variables:
#   PYTHON=python3.12      the interpreter .venv is made with (3.11 or newer)
#   TORCH=torch==2.13.0    the torch to install
#   TORCH_INDEX=URL        where torch alone comes from; empty: pip's default. For example
#                            https://download.pytorch.org/whl/cpu    without CUDA, on Linux
#                            https://download.pytorch.org/whl/cu130  with CUDA 13.0
#   WORKERS=2              processes of `make test`
PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
CI_STAMP := $(VENV)/installed-ci
PYTEST := HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

# torch's OpenMP threads spin while they wait; beside any other busy process that makes small operations
# 10 to 100 times slower.
export OMP_WAIT_POLICY = PASSIVE
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: setup setup-ci demo nano findings test test-slow check format clean

setup: $(STAMP)

# torch comes first and by itself: only it may come from another index (which has other versions of what torch
# needs, so no constraints yet), and with it in place no other package pulls in another build.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)'
	sed 's|^torch==.*|$(TORCH)|' constraints.txt > $(VENV)/constraints.txt
	$(BIN)/pip install --quiet -c $(VENV)/constraints.txt -e '.[train,dev]'
	touch $@

setup-ci: $(CI_STAMP)

# lmms-eval requires torchvision, wandb and some forty more; its run in the tests needs these few.
LMMS_EVAL := aiohttp evaluate filelock loguru pytablewriter pytz sacrebleu tenacity

# triton comes with the CUDA builds of torch 2.13, at this version; with a CPU build its interpreter runs the kernels.
$(CI_STAMP): $(STAMP)
	$(BIN)/pip install --quiet -c $(VENV)/constraints.txt -e '.[train,dev,quant,plots,eval]' $(LMMS_EVAL)
	$(BIN)/pip install --quiet -c $(VENV)/constraints.txt --no-deps lmms-eval
	$(BIN)/python -c 'import triton' 2> /dev/null || $(BIN)/pip install --quiet --no-deps triton==3.7.1
	touch $@

demo: $(STAMP)
	$(BIN)/convllava demo

# Two processes of one thread each; an interrupted run goes on from its last checkpoint.
TRAIN := OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc-per-node 2 -m convllava.cli.main train

nano: $(STAMP)
	set -e; for recipe in recipes/nano/[0-6]_*.yaml; do $(TRAIN) $$recipe --resume; done
	$(BIN)/python recipes/nano/teach_words.py runs/nano/6_pretrain_longer runs/nano/6_words
	set -e; for recipe in recipes/nano/[7-9]_*.yaml recipes/nano/1[0-5]_*.yaml; do $(TRAIN) $$recipe --resume; done
	$(BIN)/python recipes/nano/grow_language_model.py runs/nano/15_instruct runs/nano/16_grown
	set -e; for recipe in recipes/nano/1[7-9]_*.yaml recipes/nano/20_*.yaml; do $(TRAIN) $$recipe --resume; done
	$(BIN)/python recipes/nano/average.py runs/nano/18_instruct runs/nano/19_instruct_scenes runs/nano/20_instruct_scenes runs/nano/21_average
	set -e; for recipe in recipes/nano/2[23]_*.yaml; do $(TRAIN) $$recipe --resume; done
	$(BIN)/python recipes/nano/average.py runs/nano/21_average runs/nano/22_pretrain runs/nano/23_instruct runs/nano/24_average
	$(BIN)/python recipes/nano/teach_coordinates.py runs/nano/24_average runs/nano/25_coordinates
	set -e; for recipe in recipes/nano/2[6-9]_*.yaml recipes/nano/3[01]_*.yaml; do $(TRAIN) $$recipe --resume; done
	$(BIN)/python recipes/nano/average.py runs/nano/31_pretrain runs/nano/31_pretrain runs/nano/28_pretrain runs/nano/32_average
	$(TRAIN) recipes/nano/33_pretrain.yaml --resume
	$(BIN)/python recipes/nano/average.py runs/nano/33_pretrain runs/nano/33_pretrain runs/nano/33_pretrain runs/nano/32_average runs/nano/34_average
	$(BIN)/python recipes/nano/bundle.py runs/nano/34_average src/convllava/assets/nano

findings: $(STAMP)
	$(BIN)/convllava findings run

test: $(STAMP)
	$(PYTEST) -n $(WORKERS)

# One after the other: some of them bound their own time.
test-slow: $(STAMP)
	$(PYTEST) -m 'slow and not gpu and not network'

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) -q tests/test_layers.py

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
