PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
INSTALL := $(RUN)/python -m pip install --quiet --constraint constraints.txt --editable

PEERS := .venv-peers
GPU_VENV := .venv-gpu
MILVUS_VENV := .venv-milvus
RESULTS := benchmarks/results
BENCH := $(RUN)/python -m benchmarks
LARGE := --resume --json $(RESULTS)
CUDA := $(GPU_VENV)/bin/python -m benchmarks

.PHONY: serve milvus test-milvus test test-all test-gpu test-deploy test-browser peers bench bench-large bench-gpu bench-on-gpu report

serve: $(VENV)/serve.stamp  ## the service on http://127.0.0.1:8000, gallery in ./data
	$(RUN)/resight serve

test: $(VENV)/test.stamp  ## style, types and the suite
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/pytest -m "not gpu and not docker and not milvus and not browser"

test-all: test test-gpu test-deploy test-browser  ## adds what needs an engine that may be absent

test-gpu: $(VENV)/test.stamp
	timeout 600 $(RUN)/pytest -m gpu -rs

# TEST_BASE_IMAGE names another base image than Docker's python:3.11-slim-bookworm.
test-deploy: $(VENV)/test.stamp  ## builds the cpu image and runs it; skips, and says why, where no Docker engine answers
	timeout 1800 $(RUN)/pytest -m docker -rs tests/deploy

test-browser: $(VENV)/test.stamp  ## the console in Chromium; skips, and says why, where there is none
	$(RUN)/pytest -m browser -rs tests/e2e/console

milvus: $(MILVUS_VENV)/server.stamp  ## a Milvus server of its own, for tests, in an environment of its own

test-milvus: $(VENV)/milvus.stamp milvus  ## the gallery's suite on both galleries, replicas, a killed Milvus, migration
	$(RUN)/pytest -m milvus -rs

peers: $(PEERS)/bench.stamp  ## what the service is compared with, in an environment of its own

# A quarter of an hour on two quiet cores, and what pip takes for both environments.
bench: $(VENV)/bench.stamp $(PEERS)/bench.stamp  ## every speed, at 20,000 and 100,000 crops, into docs/performance.md
	$(BENCH).decode --json $(RESULTS)/decode.json
	$(BENCH).engine --seconds 0.3 --json $(RESULTS)/engine.json
	$(BENCH).service --seconds 1.5 --json $(RESULTS)/service.json
	$(BENCH).search --crops 20000 --json $(RESULTS)/search-20000.json
	$(BENCH).search --crops 100000 --json $(RESULTS)/search-100000.json
	$(BENCH).enrolment --crops 3000 --json $(RESULTS)/enrolment.json
	$(BENCH).start --seconds 0.5 --json $(RESULTS)/start.json
	$(BENCH).growth --json $(RESULTS)/growth.json
	$(BENCH).report

# Hours. Stopped and called again, it goes on: what is there for the same host, code and settings is left as it is.
bench-large: $(VENV)/bench.stamp $(PEERS)/bench.stamp  ## galleries up to a million crops
	$(BENCH).enrolment --crops 20000 --repeats 3 $(LARGE)/enrolment-large.json
	$(BENCH).growth --sizes 10000,30000,100000,300000,1000000 $(LARGE)/growth-large.json
	$(BENCH).start --sizes 100000 --dim 2048 $(LARGE)/start-100000x2048.json
	$(BENCH).start --sizes 1000000 --dim 512 $(LARGE)/start-1000000x512.json
	$(BENCH).search --crops 100000 --graphs 100000 $(LARGE)/search-100000.json
	$(BENCH).search --crops 300000 --graphs 300000 $(LARGE)/search-300000.json
	$(BENCH).search --crops 1000000 --dim 512 --graphs 1000000 $(LARGE)/search-1000000x512.json
	$(BENCH).search --crops 1000000 $(LARGE)/search-1000000.json
	$(BENCH).report

bench-gpu:  ## engine, service and search on a GPU; pip needs its wheels once, and nothing afterwards
	@if ! nvidia-smi --list-gpus >/dev/null 2>&1; then echo "not run: this machine has no NVIDIA GPU"; \
	else $(MAKE) --no-print-directory bench-on-gpu; fi

# PyTorch brings another CUDA than the gpu extra, so it runs in .venv.
bench-on-gpu: $(GPU_VENV)/bench.stamp $(VENV)/bench.stamp
	$(CUDA).engine --device cuda --only resight --batches 1,16,32,64,256 --json $(RESULTS)/gpu-engine.json
	$(BENCH).engine --device cuda --only pytorch pytorch-compiled --batches 1,16,32,64,256 --compiled-batches 64 --json $(RESULTS)/gpu-engine-pytorch.json
	$(CUDA).service --device cuda --only resight --clients 1,8,32 --most 1024 --json $(RESULTS)/gpu-service.json
	$(CUDA).service --device cuda --only resight --crops 1 --clients 32 --gallery 1000000 --json $(RESULTS)/gpu-queries.json
	$(CUDA).search --only resight-gpu faiss-gpu --crops 10000000 --batches 1,64 --json $(RESULTS)/gpu-search.json
	$(BENCH).search --only pytorch-gpu --crops 10000000 --batches 1,64 --json $(RESULTS)/gpu-search-pytorch.json
	$(CUDA).search --only resight-cagra --crops 1000000 --batches 1,64 --json $(RESULTS)/gpu-cagra.json
	$(BENCH).report

report: $(VENV)/bench.stamp  ## docs/performance.md from benchmarks/results
	$(BENCH).report

$(VENV)/serve.stamp: pyproject.toml constraints.txt | $(RUN)/python
	$(INSTALL) '.[cpu]'
	touch $@

$(VENV)/test.stamp: pyproject.toml constraints.txt | $(RUN)/python
	$(INSTALL) '.[cpu,train,dev]'
	touch $@

$(VENV)/milvus.stamp: pyproject.toml constraints.txt | $(RUN)/python
	$(INSTALL) '.[cpu,train,dev,cluster]'
	touch $@

$(MILVUS_VENV)/server.stamp:
	$(PYTHON) -m venv $(MILVUS_VENV)
	$(MILVUS_VENV)/bin/python -m pip install --quiet 'milvus==2.3.5' 'setuptools<81'
	touch $@

$(VENV)/bench.stamp: pyproject.toml constraints.txt | $(RUN)/python
	$(INSTALL) '.[cpu,train]'
	touch $@

$(PEERS)/bench.stamp: benchmarks/peers/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --requirement $<
	touch $@

$(GPU_VENV)/bench.stamp: pyproject.toml constraints.txt constraints-gpu.txt
	$(PYTHON) -m venv $(GPU_VENV)
	$(GPU_VENV)/bin/python -m pip install --quiet --constraint constraints.txt --constraint constraints-gpu.txt --editable '.[gpu]'
	touch $@

$(RUN)/python:
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --upgrade pip
