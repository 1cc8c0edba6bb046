# reelgraph. `make help` lists the targets; each creates .venv on first use.
.DEFAULT_GOAL := help
.PHONY: help install run test test-fast gpu check bench bench-pairs bench-per-track bench-alignments bench-memory bench-client structure bench-find bench-people \
	bench-blur bench-match bench-tracks bench-streams bench-loader accuracy strangers docs clean

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# uv installs several times faster than pip; pip it is where uv cannot be had, or cannot reach the package index.
PIP = $(BIN)/python -m pip --quiet --disable-pip-version-check install
INSTALL = { $(PIP) uv && $(BIN)/uv pip install --quiet --python $(BIN)/python --editable $(1); } || $(PIP) --editable $(1)
WORKFLOW ?= workflows/faces.yaml
ARGS ?=
# Tests wait more than they compute. Modules stay whole, for what they share, and in their order: tests/conftest.py has the
# slow ones first.
JOBS ?= 4
SIDE_BY_SIDE = -n $(JOBS) --dist loadfile --no-loadscope-reorder
GPU_ARGS ?=

# The CUDA build of ONNX Runtime and the bindings of dask-cuda, where a driver says which CUDA it speaks.
CUDA_MAJOR := $(shell nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: \([0-9]*\).*/\1/p')
comma := ,
CUDA_EXTRA := $(if $(filter 12,$(CUDA_MAJOR)),$(comma)cu12,$(if $(CUDA_MAJOR),$(comma)cu13))
# onnxruntime and onnxruntime-gpu are one folder: whichever was written last is what runs.
HAS_CUDA := import onnxruntime, sys; sys.exit("CUDAExecutionProvider" not in onnxruntime.get_available_providers())
GPU_VERSION := from importlib.metadata import version; print(version("onnxruntime-gpu"))
CUDA_LAST := $(if $(CUDA_EXTRA),@$(BIN)/python -c '$(HAS_CUDA)' || \
	$(PIP) --force-reinstall --no-deps "onnxruntime-gpu==$$($(BIN)/python -c '$(GPU_VERSION)')")

VIDEO ?=
INPUT := $(or $(VIDEO),runs/demo.mp4)
OUT ?=

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 25

install: $(VENV)/.installed  ## create .venv and install reelgraph into it

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@$(call INSTALL,".[demo$(comma)xarray$(comma)images$(CUDA_EXTRA)]")
	$(CUDA_LAST)
	@touch $@
	@echo "installed; to have the command reelgraph: source $(BIN)/activate"

$(VENV)/.installed-test: $(VENV)/.installed
	@$(call INSTALL,".[test]")
	$(CUDA_LAST)
	@touch $@

$(VENV)/.installed-check: $(VENV)/.installed-test
	@$(call INSTALL,".[check]")
	@touch $@

run: $(VENV)/.installed $(if $(VIDEO),,runs/demo.mp4)  ## analyse VIDEO=clip.mp4 (a demo clip without it) into OUT=runs/clip.zarr
	@video='$(INPUT)'; name=$$(basename "$$video" | tr -d '*?[]@'); name=$${name%.*}; out='$(OUT)'; \
	exec $(BIN)/reelgraph run $(WORKFLOW) "$$video" --out "$${out:-runs/$${name:-videos}.zarr}" $(ARGS)

runs/demo.mp4: | $(VENV)/.installed
	@mkdir -p runs
	$(BIN)/reelgraph demo $@

test: $(VENV)/.installed-test  ## run every test
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ARGS)

test-fast: $(VENV)/.installed-test  ## run the tests that take seconds
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not slow" $(ARGS)

gpu: $(VENV)/.installed-test  ## tests and a benchmark on this machine's GPUs; GPU_ARGS="--quick"
	$(if $(CUDA_EXTRA),-@$(PIP) "PyNvVideoCodec>=2")
	@$(BIN)/python benchmarks/gpu.py --tests $(GPU_ARGS)

$(VENV)/.installed-docs: $(VENV)/.installed
	@$(call INSTALL,".[docs]")
	@touch $@

docs: $(VENV)/.installed-docs  ## make the reference of the Python API, build/docs/index.html
	@$(BIN)/python docs/reference.py build/docs
	@echo build/docs/index.html

check: $(VENV)/.installed-check  ## lint, types, prose
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python tests/prose.py

bench: $(VENV)/.installed-test  ## race DeepFace's own loop on this machine; prints a table, writes bench.json
	$(BIN)/python benchmarks/main_job.py $(ARGS)

bench-pairs: $(VENV)/.installed-test  ## the same for four pairs of detector and network; writes bench-pairs.json
	$(BIN)/python benchmarks/pairs.py $(ARGS)

bench-per-track: $(VENV)/.installed-test  ## what `per: track` saves and costs; writes bench-per-track.json
	$(BIN)/python benchmarks/per_track.py $(ARGS)

bench-alignments: $(VENV)/.installed-test  ## what two views of each face cost; writes bench-alignments.json
	$(BIN)/python benchmarks/alignments.py $(ARGS)

bench-memory: $(VENV)/.installed-test  ## peak memory of runs over short and long files
	$(BIN)/python benchmarks/memory.py $(ARGS)

bench-features: $(VENV)/.installed-test  ## features of many pictures beside a script and a loader; planning 8,000,000 names
	$(BIN)/python benchmarks/features.py $(ARGS)

bench-match: $(VENV)/.installed-test  ## pairs of pictures beside scripts and hloc's way; memory of shared features
	$(BIN)/python benchmarks/match.py $(ARGS)

bench-streams: $(VENV)/.installed-test  ## mosaics, and several streams at once on shares of the machine
	$(BIN)/python benchmarks/streams.py $(ARGS)

bench-loader: $(VENV)/.installed-test  ## batches for training beside Keras' and torch's loaders; ARGS="--torch PYTHON"
	$(BIN)/python benchmarks/loader.py $(ARGS)

bench-client: $(VENV)/.installed-test  ## cost of a run's client: per chunk, a million chunks, resuming, commits
	$(BIN)/python benchmarks/client.py $(ARGS)

structure: $(VENV)/.installed-test  ## floors, upward imports and circles of the package
	$(BIN)/python -m tests.structure

bench-find: $(VENV)/.installed-test  ## known people and one never named, in stored faces; ARGS="--faces 10_000_000"
	$(BIN)/python benchmarks/find.py $(ARGS)

bench-people: $(VENV)/.installed-test  ## tracks and people beside the truth of labelled clips, and what each choice adds
	$(BIN)/python benchmarks/people.py $(ARGS)

build/trackers:
	$(PIP) --no-deps --target $@ trackers==2.6.1 supervision==0.31.2 pyDeprecate==0.14.0 defusedxml==0.7.1 motmetrics==1.4.0 xmltodict==1.0.4

# What it measures against comes without its dependencies: they bring a second OpenCV.
bench-tracks: $(VENV)/.installed-test build/trackers  ## tracks of objects on labelled clips, beside SORT, ByteTrack and OC-SORT; bench-tracks.json
	PYTHONPATH=.:build/trackers $(BIN)/python benchmarks/tracks.py $(ARGS)

bench-blur: $(VENV)/.installed-test  ## what is left of faces in a blurred film; ARGS="CLIP... --every 1 5"
	$(BIN)/python benchmarks/blur.py $(ARGS)

accuracy: $(VENV)/.installed-test  ## who is who on labelled faces: DeepFace and this package; ARGS="--faces DIR --pairs FILE" or "--lfw DIR"
	$(BIN)/python benchmarks/accuracy.py $(ARGS)

strangers: $(VENV)/.installed-test  ## how many strangers are named, by the size of the gallery; ARGS="--faces DIR"
	$(BIN)/python benchmarks/strangers.py $(ARGS)

clean:  ## remove .venv and what runs left behind
	rm -rf $(VENV) runs/demo.mp4 runs/demo.zarr
