# make test   installs what is missing into .venv, then style, types and the tests, all but those of make soak
# make soak   the tests that take minutes each: the demo at its real size, for one
# make older  exports of all architectures, loaded and compared by transformers 4.57 in .venv-older (downloads it and torch)
# make demo   SFT, then KTO on a tiny model and a bundled preference set; samples and comparisons (runs/demo)
# make bench  the CPU benchmarks against TRL, about an hour on an idle machine of two cores; continues where it was broken off
# make lint   style and types only
# make clean  removes .venv and every cache; runs/ and samples/ stay

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: setup demo test soak older suite style types lint bench clean

PYTHON ?= $(firstword $(foreach python,python3.11 python3.12 python3.13 python3,$(shell command -v $(python))))
INSTALLED := .venv/.installed
ifdef PIP_FIND_LINKS
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)  # uv does not read pip's variables
endif

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml
	if command -v uv > /dev/null; then \
	  uv venv --quiet --allow-existing --python "$(PYTHON)" .venv; \
	  uv pip install --quiet --python .venv/bin/python -e '.[dev]'; \
	else \
	  [ -x .venv/bin/python ] || "$(PYTHON)" -m venv .venv; \
	  .venv/bin/python -m pip install --quiet -e '.[dev]'; \
	fi
	touch $@

demo: $(INSTALLED)
	PYTHON=.venv/bin/python bash docs/demo.sh

BENCH_PAIRS ?= ../shared/data/dpo_en_demo.json
BENCH_LABELLED ?= ../shared/data/kto_en_demo.json

bench: runs/bench/.made
	for task in dpo kto sft; do .venv/bin/python bench/compare.py --task $$task --against trl,trl-best; done
	.venv/bin/python bench/compare.py --task dpo --against prospect-ckpt --steps 2 --pairs 2
	.venv/bin/python bench/compare.py --task dpo --shape s128k --max-length 512 --mb 2 --steps 2 --pairs 2

runs/bench/.made: $(INSTALLED)
	.venv/bin/python bench/prepare.py --pairs $(BENCH_PAIRS) --labelled $(BENCH_LABELLED) --out runs/bench --shapes d8k,s128k
	touch $@

lint: style types

style: $(INSTALLED)
	.venv/bin/ruff check
	.venv/bin/ruff format --check

types: $(INSTALLED)
	.venv/bin/mypy

# The types are checked beside the tests: mypy alone would leave a core idle.
test: style
	+$(MAKE) --no-print-directory --jobs=2 --keep-going types suite

# Two processes, one thread each: torch's own threads would fight over the cores.
suite: $(INSTALLED)
	OMP_NUM_THREADS=1 .venv/bin/pytest -n 2 --dist worksteal

soak: $(INSTALLED)
	OMP_NUM_THREADS=1 .venv/bin/pytest -n 2 --dist worksteal -m soak

OLDER := .venv-older/.installed
TORCH = $(shell .venv/bin/python -c 'import torch; print(torch.__version__.split("+")[0])')

older: $(INSTALLED) $(OLDER)
	rm -rf runs/older && mkdir -p runs/older
	.venv/bin/python -m tests.older.export runs/older
	.venv-older/bin/python tests/older/check.py runs/older tests/older/read.json

$(OLDER): | $(INSTALLED)
	.venv/bin/python -m venv .venv-older
	.venv-older/bin/python -m pip install --quiet 'transformers==4.57.6' 'torch==$(TORCH)'
	touch $@

clean:
	rm -rf .venv .venv-older .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
