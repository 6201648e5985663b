# Two commands do everything: `make demo` and `make test`. Both make the environment first.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
# The CPU build of torch comes from PyTorch's page when it can be reached, else from where pip finds 2.13.0.
TORCH_PAGE := https://download.pytorch.org/whl/cpu/torch/
DATA ?= ../shared/data
CLIENTS ?= .venv-clients

.PHONY: help install demo test lint docs serve bench-banking77 bench-tatqa bench-gsm8k bench-wire bench-check bench-faq bench-distill bench-logs bench-intervals bench-advice bench-compare bench-train bench-serve bench-kills bench-plan bench-grouping bench-rates pebble clean
help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --retries 0 --find-links $(TORCH_PAGE) torch==2.13.0
	$(BIN)/pip install --quiet -e '.[train,dev]'
	touch $@

## make install    the environment in .venv
install: $(VENV)/installed

## make demo       tune, deploy, ask, compare: under three minutes after installation
demo: install
	$(BIN)/outcrop demo

## make test       lint, types and all tests
test: install lint $(CLIENTS)/installed
	$(BIN)/pytest -q

# What examples/clients is tried with; without it those tests are skipped.
$(CLIENTS)/installed: examples/clients/requirements.txt
	$(PYTHON) -m venv $(CLIENTS)
	-$(CLIENTS)/bin/pip install --quiet -r $< && touch $@

## make lint       ruff and mypy
lint: install
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy --no-error-summary

## make docs       write the generated parts of docs/ and README.md
docs: install
	$(BIN)/python -m outcrop.reference --write

## make serve      the service
serve: install
	$(BIN)/outcrop serve

## make bench-banking77, bench-tatqa, bench-gsm8k   base against tuned on real data, the last two with examples, too (DATA=folder with the sets)
bench-banking77: install
	$(BIN)/python -m benchmarks.banking77 --data $(DATA)
bench-tatqa: install
	$(BIN)/python -m benchmarks.tatqa --data $(DATA)
bench-gsm8k: install
	$(BIN)/python -m benchmarks.gsm8k --data $(DATA)
## make bench-wire   what the wire costs per call, and the server's start and memory
bench-wire: install
	$(BIN)/python -m benchmarks.wire

## make bench-check  a check of a gigabyte with planted faults
bench-check: install
	$(BIN)/python -m benchmarks.check

## make bench-faq    questions and answers made from documents, base against tuned on held-out ones (DATA=folder)
bench-faq: install
	$(BIN)/python -m benchmarks.faq --data $(DATA)

## make bench-distill  a teacher's words against its distribution (DATA=folder)
bench-distill: install
	$(BIN)/python -m benchmarks.distill --data $(DATA)

## make bench-logs   what the invocation log costs at full load
bench-logs: install
	$(BIN)/python -m benchmarks.logs

## make bench-intervals  how often intervals hold the truth, and equal arms are called different
bench-intervals: install
	$(BIN)/python -m benchmarks.intervals

## make bench-advice  advice on six tasks whose right answer is known, three seeds each (half an hour; DATA=folder)
bench-advice: install
	$(BIN)/python -m benchmarks.advice --data $(DATA)

## make bench-compare  what a comparison takes beside its answers
bench-compare: install
	$(BIN)/python -m benchmarks.compare

## make bench-train  training against TRL and transformers (makes their environment in .venv-peers; 40 minutes)
PEERS ?= .venv-peers
$(PEERS)/installed:
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --retries 0 --find-links $(TORCH_PAGE) torch==2.13.0
	$(PEERS)/bin/pip install --quiet transformers==5.23.0 peft==0.21.2 trl==1.16.0 accelerate==1.15.0 datasets==5.2.0 ctranslate2==4.8.5
	touch $@
bench-train: install $(PEERS)/installed
	$(BIN)/python -m benchmarks.train --data $(DATA) --peers $(PEERS)
## make bench-serve  the engine against transformers and CTranslate2, and the service under load
bench-serve: install $(PEERS)/installed
	$(BIN)/python -m benchmarks.serve --peers $(PEERS)
## make bench-kills  a run killed thirty times against one left alone
bench-kills: install
	$(BIN)/python -m benchmarks.kills
## make bench-plan   plans against what ten jobs then took
bench-plan: install
	$(BIN)/python -m benchmarks.plan --data $(DATA)

## make bench-grouping, bench-rates   what grouping does to the result; rates and batch sizes by size of the set
bench-grouping: install
	$(BIN)/python -m benchmarks.grouping --data $(DATA)
bench-rates: install
	$(BIN)/python -m benchmarks.rates --data $(DATA)

## make pebble     train the starter model again (hours; PEBBLE=folder for the run)
PEBBLE ?= build/pebble
pebble: install
	$(BIN)/python -m recipes.pebble.make --data $(DATA) --out $(PEBBLE)

clean:
	rm -rf $(VENV) $(PEERS) $(CLIENTS) build dist
