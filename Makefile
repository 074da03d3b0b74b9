# make demo: every step on the demo corpus.  make test, make lint: the checks of CI.  make setup: create .venv.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
RUN := .venv/bin/python
DEMO := --config configs/demo.yaml
WAVS := corpora/demo/wav/F01/F01-angry-01.wav corpora/demo/wav/M01/M01-happy-02.wav corpora/demo/wav/F02/F02-sad-03.wav

# On shared cores, let torch's threads spin only briefly while they wait for each other.
export GOMP_SPINCOUNT ?= 1000
# Compute on the CPU what torch lacks on Apple's GPU; torch warns of it once.
export PYTORCH_ENABLE_MPS_FALLBACK ?= 1

.PHONY: setup demo test lint clean

setup: .venv/ready

.venv/ready: requirements.txt requirements-dev.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer found; set PYTHON=/path/to/python3" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch .venv/ready

demo: setup
	$(RUN) prepare.py --corpus demo $(DEMO)
	$(RUN) search.py --name demo --dataset demo --fold 1 $(DEMO) --overwrite
	$(RUN) augment.py --name demo --dataset demo --fold 1 $(DEMO) --overwrite
	$(RUN) predict.py --model runs/demo $(WAVS)
	@echo "\nPictures of the search: runs/demo/search/plots; of the test: runs/demo/augment/plots"
	@echo "Curves: .venv/bin/tensorboard --logdir runs"

test: setup
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --dist loadfile

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

clean:
	rm -rf .venv runs features corpora
