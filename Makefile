# One command each; `make check` is what must pass before a commit.
PYTHON ?= python3
TORCH_PYTHON ?= $(PYTHON)
PYTEST = $(PYTHON) -m pytest
TESTS ?= tests
C_SOURCES = $(shell git ls-files 'src_c/*.c' 'src_c/*.h')
CLANG_FORMAT ?= $(shell command -v clang-format || ls $(dir $(shell command -v $(PYTHON)))clang-format 2>/dev/null)

.PHONY: help build test long bench table grid networks lint format asan tsan check clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

build:  ## compile fastconv/_core in place, warnings are errors
	FASTCONV_DEVELOP=warnings $(PYTHON) setup.py --quiet build_ext --inplace --build-temp build/warnings

test: build  ## run the tests against the source tree
	$(PYTEST)

long: build  ## run the tests that take minutes (marked `long`), which `make test` leaves out
	$(PYTEST) -m long $(TESTS)

bench: build  ## time the kernels; narrow with BENCH="-k depthwise"
	$(PYTEST) bench --benchmark-enable $(BENCH)

table: build  ## print the ratios to torch (which TORCH_PYTHON has); TABLE="--threads 1 --filter 3x3"
	$(TORCH_PYTHON) bench/table.py $(TABLE)

grid: build  ## the same for some 500 awkward shapes, and which of them are slower; GRID="--threads 1 --part 1/20"
	$(TORCH_PYTHON) bench/grid.py $(GRID)

networks: build  ## time whole networks against torch, ONNX Runtime, OpenVINO and ncnn; NETWORKS="--filter resnet18"
	$(TORCH_PYTHON) bench/networks.py $(NETWORKS)

lint:  ## ruff, mypy, and clang-format if there is one
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check --quiet .
	$(PYTHON) -m mypy
	$(if $(CLANG_FORMAT),$(CLANG_FORMAT) --dry-run -Werror $(C_SOURCES), \
		@echo "clang-format not found: C style not checked")

format:  ## rewrite Python and C sources in the house style
	$(PYTHON) -m ruff format .
	$(CLANG_FORMAT) -i $(C_SOURCES)

asan:  ## run the tests under AddressSanitizer and UBSan; narrow with TESTS="tests/test_conv.py"
	PYTHON=$(PYTHON) .ci/sanitize address $(TESTS)

tsan:  ## run the thread tests under ThreadSanitizer
	PYTHON=$(PYTHON) .ci/sanitize thread $(TESTS)

check: build lint  ## build, lint, tests, and every benchmark once
	$(PYTEST)
	$(PYTEST) bench

clean:  ## remove what the builds made
	rm -rf build dist *.egg-info fastconv/_core.c fastconv/*.so
