# `make demo` and `make test` need Python 3.10 to 3.13 and nothing else; all they install and
# write stays in .venv/, build/ and demo/.

PYTHON ?= python3
BIN := .venv/bin
# A real FMA for the demo; exported, so that the shell does not read the paths as its own words.
export AUDIO_DIR TRACKS_CSV
# Container images often set it. uv compiles nothing, so each process would compile TensorFlow anew:
# 17 CPU-seconds of imports instead of 6.
unexport PYTHONDONTWRITEBYTECODE

# One more than there are cores, since tests also wait; each may take 4 GB.
PROCESSES := $(shell cores=$$(getconf _NPROCESSORS_ONLN); echo $$((cores < 4 ? cores + 1 : 4)))
SIDE_BY_SIDE := $(BIN)/python -m pytest -n $(PROCESSES) --dist=loadfile --no-loadscope-reorder

.PHONY: demo demo-stream real test test-integration soak bench docs pictures lint format lock clean

demo: .venv/demo-installed
	@echo "environment: .venv is ready"
	$(BIN)/python -m examples.demo --output_dir=demo \
	    --audio_dir="$$AUDIO_DIR" --tracks_csv="$$TRACKS_CSV"

# The stream, live, until Ctrl-C.
demo-stream: .venv/demo-installed
	@echo "environment: .venv is ready"
	@$(BIN)/python -m examples.demo_stream --output_dir=demo

# Real FMA clips as pictures, for `make real`.
PICTURES ?= ../shared/fma_pictures
export PICTURES

# The networks beyond the poster on real music, beside their baselines: build/real/real.md. What is
# done stays; the same command goes on.
real: .venv/installed
	$(BIN)/python -m examples.real --pictures="$$PICTURES" --output_dir=build/real

test: .venv/installed
	$(SIDE_BY_SIDE) -m 'not integration'

# Those that measure how long a server's answers take have the machine to themselves.
test-integration: .venv/installed
	$(SIDE_BY_SIDE) -m 'integration and not alone'
	$(BIN)/python -m pytest -m 'integration and alone'

# The counts that the integration tests try a few of, in full.
soak: .venv/installed
	SOAK_KILLS=20 SOAK_STREAM_KILLS=20 SOAK_STREAM_AWAY=60 SOAK_DAMAGED=1000 \
	    SOAK_TRAINING_KILLS=10 SOAK_GROUP_KILLS=5 SOAK_FOLLOW_KILLS=10 SOAK_STORIES=100 \
	    SOAK_STORY_STEPS=10 SOAK_SECONDS=60 SOAK_DAMAGED_UPLOADS=500 \
	    $(BIN)/python -m pytest -m integration \
	    tests/beam_pipelines/test_rerun.py tests/beam_pipelines/test_disturbances.py \
	    tests/beam_pipelines/test_damage.py tests/beam_pipelines/test_stream_from_kafka.py \
	    tests/trainer/test_resume.py tests/trainer/test_follow.py tests/serving/test_load.py
	SOAK_DEMO_STREAM=1 $(BIN)/python -m pytest -m integration tests/examples/test_demo_stream.py
	SOAK_SONGS=1000 SOAK_CUTS=500 $(BIN)/python -m pytest tests/common/test_song_parts.py
	$(BIN)/python -m tests.fuzz.run --seconds=600
	SOAK_SIGNALS=200 SOAK_FAULTS=200 SOAK_STOPPED_SECONDS=120 \
	    $(BIN)/python -m pytest -m integration tests/end_to_end/test_hostile.py \
	    -o junit_family=xunit1 --junitxml=build/hostile.xml

# Ratios measured side by side, and limits: a table, and build/bench.json.
bench: .venv/installed
	$(BIN)/python -m tests.benchmarks.run

# The documentation, as a site in build/site; nothing of it is fetched from elsewhere.
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html"

# docs/pictures, and the figures in README and docs, from a finished demo and `make real`.
pictures: demo .venv/installed
	$(BIN)/python -m tools.make_pictures --demo_dir=demo
	$(BIN)/python -m tools.fill_results --demo_dir=demo

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-logo

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Writes constraints.txt anew from the ranges in setup.py, for all Python versions at once.
lock: .venv/installed
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.10 --extra dev \
	    --no-annotate --custom-compile-command 'make lock' --output-file constraints.txt setup.py

# The demo needs less than the tests, whose environment holds the demo's.
.venv/demo-installed: setup.py constraints.txt
	@$(PYTHON) -m tools.make_environment demo

.venv/installed: setup.py constraints.txt
	@$(PYTHON) -m tools.make_environment dev

clean:
	rm -rf .venv build demo
