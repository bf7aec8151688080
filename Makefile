# The pipeline: a target a stage. Checkpoints are files, so make builds only what is missing; `make help` lists the targets.

PYTHON   ?= $(shell command -v python3.11 || command -v python3)
PROFILE  ?= $(if $(filter study curve,$(MAKECMDGOALS)),study,demo)
RUNS     ?= runs
SEED     ?= 0
FOLD     ?= 0
SEEDS    ?= 5
FIRST    ?= 101
FOLDS    ?= 1
DEVICES  ?= 1
NODES    ?= 1
STRATEGY ?= auto
JOBS     ?= 2
ARGS     ?=
LAUNCH   ?=
PUBLISH  ?=
LABELS   ?=
NUMBERS  ?= 20 40 80 160 320
NOISE    ?=
BOTH     ?=
REGIME   ?=

# What would be misread is told before anything runs.
VARIABLES := PYTHON PROFILE COHORT RUNS SEED FOLD SEEDS FIRST FOLDS DEVICES NODES STRATEGY JOBS ARGS LAUNCH PUBLISH LABELS NUMBERS NOISE BOTH \
  REGIME REPLICATE SIMULATE_ARGS PREVALENCE COVARIATES ARMS BASELINE STAGE SBATCH_ARGS BENCHMARKS OMP_NUM_THREADS
UNKNOWN := $(filter-out $(VARIABLES) MAKEFLAGS MAKEOVERRIDES -%,$(foreach name,$(.VARIABLES),$(if $(findstring command line,$(origin $(name))),$(name))))
$(if $(UNKNOWN),$(error $(firstword $(UNKNOWN)) is no variable of this Makefile; it has $(VARIABLES)))
$(foreach name,COHORT RUNS,$(if $(word 2,$($(name))),$(error $(name)=$($(name)): make cannot handle a path with blanks; rename the folder or link to it)))
$(if $(wildcard experiments/pod/$(PROFILE).yaml),,$(error PROFILE=$(PROFILE): there is no experiments/pod/$(PROFILE).yaml; give demo, study, paper or a profile of your own there))
NO_NUMBER := $(shell for pair in $(foreach name,SEED FOLD SEEDS FIRST FOLDS NODES JOBS,'$(name)=$($(name))'); do \
  case "$${pair#*=}" in (''|*[!0-9]*) echo "$$pair"; break;; esac; done)
$(if $(NO_NUMBER),$(error $(NO_NUMBER): give a whole number))

BIN := .venv/bin
POD := $(BIN)/poddistill
# LABELS, NOISE and BOTH train the students otherwise, on the same cohort, MAE and teachers; REGIME names a cohort of its own.
COMMON := $(PROFILE)$(REGIME:%=-%)
NAME   := $(COMMON)$(LABELS:%=-%labels)$(NOISE:%=-%noise)$(BOTH:%=-%both)
PLACE  := $(REPLICATE:%=cohort%/)seed$(SEED)-fold$(FOLD)
RUN    := $(RUNS)/$(NAME)/$(PLACE)
UPRUN  := $(RUNS)/$(COMMON)/$(PLACE)
SETUP := .venv/.installed

# The cohorts of the profiles demo and study are simulated, and so is one of its own for each replicate of a study, whose
# number is its seed. Every other cohort is the user's, made with `poddistill ingest`.
SIMULATED_PROFILES := demo study
KNOWN_KEY := simulated patients need no secret
SIMULATED := cohorts/$(COMMON)$(REPLICATE:%=-replicates/%)
ifneq ($(filter $(SIMULATED_PROFILES),$(PROFILE)),)
COHORT ?= $(SIMULATED)
endif
COHORT ?=
SIMULATE_ARGS ?= $(if $(filter study,$(PROFILE)),--n_labelled 1500 --n_unlabelled 1300,--n_labelled 700 --n_unlabelled 1900) --n_clips 1000
# The share of obliterated patients, which student-prevalence is told: the simulator's default or that of SIMULATE_ARGS.
ifeq ($(COHORT),$(SIMULATED))
PREVALENCE ?= $(or $(patsubst --prevalence=%,%,$(lastword $(filter --prevalence=%,$(subst --prevalence ,--prevalence=,$(SIMULATE_ARGS))))),0.25)
endif
PREVALENCE ?=

# Jobs side by side share the cores.
OMP_THREADS = $${OMP_NUM_THREADS:-$$(n=$$(($$(getconf _NPROCESSORS_ONLN) / $(JOBS))); echo $$((n > 0 ? n : 1)))}

BENCHMARKS := store ingest geometry reading augmentation mae_step mae_probe r2plus1d distillation_epoch growth gpu trained_student
# What is trained beside the MAE and the teacher: configurations in experiments/pod/arms, each by itself or with the teacher
# replaced by one in experiments/pod/controls: ARMS="student-mae student-sorted student-sorted--constant".
BASELINES := student-mae student-paper student-kd student-scratch
# Columns of both manifests. The recipe `student` rests on them; without any, student-mae is the one to use.
COVARIATES ?= $(shell sed -n 's/^  covariates: *\[\([^]]*\)\].*/\1/p' experiments/pod/$(PROFILE).yaml)
# In this order the demo's two jobs end together.
ARMS    ?= student-mae $(if $(strip $(COVARIATES)),student) student-paper student-scratch $(if $(strip $(COVARIATES)),covariates)
METHODS := $(if $(LABELS)$(NOISE)$(BOTH),,teacher) $(ARMS)
# What a study compares its arms with.
BASELINE ?= student-mae
$(if $(filter study curve,$(MAKECMDGOALS)),$(if $(filter $(BASELINE),$(ARMS)),,$(error BASELINE=$(BASELINE) is none of ARMS=$(ARMS): name one of them, or add it)))
MANIFESTS := $(COHORT)/mri.csv $(COHORT)/tvus.csv

# A run folder is not named by its cohort, and what is there already would be taken for the other cohort's.
OF_A_COHORT := $(filter-out help setup test lint bench clean,$(MAKECMDGOALS))
OTHER := $(if $(OF_A_COHORT),$(shell awk -v cohort='$(COHORT)' \
  '/^cohort: / && substr($$0, 9) != cohort { sub("/[^/]*/config.yaml$$", "", FILENAME); print FILENAME, substr($$0, 9); exit }' \
  $(wildcard $(patsubst %,%/*/config.yaml,$(sort $(RUN) $(UPRUN)))) /dev/null))
$(if $(OTHER),$(error $(firstword $(OTHER)) holds runs of COHORT=$(lastword $(OTHER)): name that one, or give $(or $(COHORT),another cohort) a RUNS= of its own))

.DELETE_ON_ERROR:
# Written when a fit is complete: not to be deleted where what comes after it fails or is interrupted.
.PRECIOUS: $(patsubst %,$(UPRUN)/%/checkpoints/best.ckpt,mae joint-mae teacher)
.PHONY: help setup demo test lint cohort mae joint-mae joint-student student-ensemble student-prevalence covariates covariates--own $(BASELINES) $(METHODS) arms baselines report pipeline study curve slurm dashboard bench clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16
	@echo 'variables: PROFILE=demo|study|paper COHORT=dir RUNS=dir SEED=0 FOLD=0 DEVICES=1 NODES=1 STRATEGY=auto JOBS=2 COVARIATES=age,pain ARGS="..."'
	@echo 'studies:   SEEDS=5 FIRST=101 FOLDS=1 ARMS="student-mae ..." BASELINE=student-mae LABELS=80 NUMBERS="20 80" NOISE=0.15 BOTH=20 REGIME=name SIMULATE_ARGS="--prevalence 0.1 ..." PUBLISH=1'

# ---------------------------------------------------------------- set-up
setup: $(SETUP) ## the virtual environment .venv with the poddistill command
$(SETUP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: poddistill needs Python 3.11 or newer; name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "setting up .venv (a few minutes the first time)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

# ---------------------------------------------------------------- the demo and the checks
demo: $(SETUP) ## everything, end to end, on a simulated cohort
	@$(MAKE) --no-print-directory -j$(JOBS) pipeline OMP_NUM_THREADS=$(OMP_THREADS)

test: $(SETUP) ## the tests
	OMP_NUM_THREADS=$(OMP_THREADS) $(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal $(ARGS)

lint: $(SETUP) ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# ---------------------------------------------------------------- the cohort
cohort: $(MANIFESTS) ## the cohort (the demo's is simulated as hospital files and ingested)

$(SIMULATED)-hospital/mri/labels.csv: | $(SETUP)
	$(POD) simulate --out $(SIMULATED)-hospital --seed $(or $(REPLICATE),1) $(SIMULATE_ARGS)

$(SIMULATED)/mri.csv: $(SIMULATED)-hospital/mri/labels.csv
	@echo '$(KNOWN_KEY)' > $(SIMULATED).key  # a fixed key: the same folds on every machine
	$(POD) ingest mri $(SIMULATED)-hospital/mri --out $(SIMULATED) --shape 16 48 48 --spacing 4 2 2 --remove_missing
	@touch $@  # an ingest that changes nothing leaves its time

# after the MRI: the folds span both modalities, so the manifests are written one after the other
$(SIMULATED)/tvus.csv: $(SIMULATED)/mri.csv
	$(POD) ingest tvus $(SIMULATED)-hospital/tvus --out $(SIMULATED) --shape 16 64 64 --remove_missing
	@touch $@  # likewise; and the ingest may have rewritten mri.csv, with the folds of both

ifneq ($(COHORT),$(SIMULATED))
$(MANIFESTS):
	@echo "error: $@ is missing: make COHORT=folder name a cohort written by 'poddistill ingest mri|tvus SRC --out folder'" >&2; exit 1
endif

# ---------------------------------------------------------------- the stages
# $(call fit,<run>,<stage>,<config>,<further options>): resumes an interrupted stage, unless what it builds on is newer.
define fit
	@last=$(1)/$(2)/checkpoints/last.ckpt; resume=; \
	if [ -f $$last ]; then \
	  resume="--ckpt_path $$last"; \
	  for input in $^; do if [ $$input -nt $$last ]; then resume=; fi; done; \
	  if [ -z "$$resume" ]; then \
	    if command -v flock > /dev/null && ! flock --nonblock $(1)/$(2)/.lock true; then \
	      echo "error: $(1)/$(2): another process is training into it; wait until it has finished" >&2; exit 1; \
	    fi; \
	    echo "$(2): its inputs changed, starting afresh"; rm -rf $(1)/$(2); \
	  fi; \
	fi; \
	$(LAUNCH) $(POD) fit --config experiments/pod/$(PROFILE).yaml --config experiments/pod/$(3).yaml \
	  --run $(1)/$(2) --method $(2) --cohort $(COHORT) --fold $(FOLD) --seed_everything $(SEED) \
	  --trainer.devices $(DEVICES) --trainer.num_nodes $(NODES) --trainer.strategy $(STRATEGY) $(4) $(ARGS) $$resume
endef

# As many optimiser steps as with the profile's own number of labels, with the same weights along the way. Each of the
# processes has its part of the labels, and batches of its own.
PROFILE_VALUE = $(shell sed -n 's/^  $(1): *\([0-9.]*\).*/\1/p' experiments/pod/$(PROFILE).yaml)
SCALED = $(shell awk 'function up(x) { return x > int(x) ? int(x) + 1 : int(x) } \
  function steps(n) { n = up(n / ($(DEVICES) * $(NODES))); return up((n < batch ? 1 : int(n / batch)) / $(call PROFILE_VALUE,student_accumulate)) } \
  BEGIN { batch = $(call PROFILE_VALUE,student_batch_size); v = $(call PROFILE_VALUE,$(1)); \
  r = steps($(call PROFILE_VALUE,n_labelled)) / steps($(LABELS)); print $(2) }')
NUMBER_OF_DEVICES = $(shell echo '$(DEVICES)' | grep -x '[1-9][0-9]*')
LABEL_ARGS := $(if $(LABELS),$(if $(NUMBER_OF_DEVICES),,$(error LABELS needs DEVICES as a number, not $(DEVICES): it says how many steps an epoch has))$(if $(call PROFILE_VALUE,n_labelled),,$(error LABELS needs a profile whose n_labelled is a number; for $(PROFILE) give ARGS="--profile.n_labelled $(LABELS) --profile.student_epochs ..."))--profile.n_labelled $(LABELS) \
  --profile.student_warmup_epochs $(call SCALED,student_warmup_epochs,v * r) --profile.student_alpha $(call SCALED,student_alpha,v ^ (1 / r)) \
  $(foreach key,student_epochs student_validate_every,--profile.$(key) $(call SCALED,$(key),(v * r < 1 ? 1 : int(v * r + .5)))))
STUDENT_ARGS := $(LABEL_ARGS) $(if $(filter-out file,$(origin COVARIATES)),--profile.covariates "[$(COVARIATES)]") $(NOISE:%=--data.init_args.mri.init_args.label_noise %) $(BOTH:%=--profile.n_both %)

mae: $(RUN)/mae/checkpoints/best.ckpt ## stage 1: masked pre-training on unlabelled MRI
$(UPRUN)/mae/checkpoints/best.ckpt: $(MANIFESTS) | $(SETUP)
	$(call fit,$(UPRUN),mae,mae)

joint-mae: $(RUN)/joint-mae/checkpoints/best.ckpt ## stage 1 for an arm: masked pre-training on MRI and clips
$(UPRUN)/joint-mae/checkpoints/best.ckpt: $(MANIFESTS) | $(SETUP)
	$(call fit,$(UPRUN),joint-mae,joint-mae)

teacher: $(RUN)/teacher/predictions.csv ## stage 2: the ultrasound teacher
$(UPRUN)/teacher/checkpoints/best.ckpt: $(MANIFESTS) | $(SETUP)
	$(call fit,$(UPRUN),teacher,teacher)

student: $(RUN)/student/predictions.csv ## stage 3: MAE encoder, labels, and what ultrasound says of covariates

joint-student: $(RUN)/joint-student/predictions.csv ## an arm: blocks of joint-mae, fine-tuned on MRI and clips

# What an arm builds on is what its configurations name in other run folders beside its own.
WITHOUT_MEMBER = $(firstword $(subst @, ,$(1)))
CONFIGS = $(firstword $(subst --, ,experiments/pod/arms/$(WITHOUT_MEMBER))).yaml $(patsubst %,experiments/pod/controls/%.yaml,$(wordlist 2,9,$(subst --, ,$(WITHOUT_MEMBER))))
INPUTS  = $(shell sed -n 's|^ *[^\#].*: $${run}/\.\./\([^ ]*\).*|$(RUN)/\1|p' $(CONFIGS))
# It runs the stage that its name begins with; no stage's name begins with another's.
STAGES := teacher student joint-student
BASE    = $(strip $(foreach stage,$(STAGES),$(if $(filter $(stage) $(stage)-%,$(WITHOUT_MEMBER)),$(stage))))
# <arm>@<k> is the arm trained once more, on the same labelled draw: a member of an ensemble.
MEMBER  = $(patsubst %,--seed_everything %$(SEED) $(foreach part,mri tvus,--data.init_args.$(part).init_args.seed $(SEED)),$(word 2,$(subst @, ,$(1))))
FOLDER  = $(if $(filter teacher-%,$(1)),$(UPRUN),$(RUN))
define arm_rule
.PRECIOUS: $(FOLDER)/$(1)/checkpoints/best.ckpt
$(1): $(RUN)/$(1)/predictions.csv
$(FOLDER)/$(1)/checkpoints/best.ckpt: $(MANIFESTS) $(INPUTS) | $(SETUP)
	$$(call fit,$(FOLDER),$(1),$(BASE),$(CONFIGS:%=--config %) $(MEMBER) $(if $(filter teacher-%,$(1)),,$$(STUDENT_ARGS)))
endef
MEMBERS  := student-mae $(patsubst %,student-mae@%,1 2 3 4)
TEACHERS := $(patsubst experiments/pod/arms/%.yaml,%,$(wildcard experiments/pod/arms/teacher-*.yaml))
NAMED    := $(foreach goal,$(MAKECMDGOALS) $(STAGE),$(if $(wildcard $(firstword $(call CONFIGS,$(goal)))),$(goal)))
ALL_ARMS := $(filter-out student-ensemble student-prevalence covariates covariates--own,$(sort $(ARMS) $(NAMED) $(TEACHERS) $(BASELINES) $(MEMBERS) joint-student))
$(foreach arm,$(ALL_ARMS),$(foreach file,$(call CONFIGS,$(arm)),$(if $(wildcard $(file)),,$(error ARMS names $(arm), but there is no $(file)))))
$(foreach arm,$(filter %--compute,$(ALL_ARMS)),$(if $(shell grep -s unlabelled_batch_size $(firstword $(call CONFIGS,$(arm)))),,$(error $(arm) would pass more volumes than its arm, which has none without a label in a batch: leave it out)))
$(foreach arm,$(ALL_ARMS),$(if $(call BASE,$(arm)),,$(error $(arm): the name of an arm begins with its stage, such as student-$(arm); rename its file)))
$(foreach arm,$(ALL_ARMS),$(eval $(call arm_rule,$(arm))))

student-ensemble: $(RUN)/student-ensemble/predictions.csv ## an arm: the mean of five trainings of student-mae
$(RUN)/student-ensemble/predictions.csv: $(MEMBERS:%=$(RUN)/%/predictions.csv)
	$(POD) ensemble $(^D) --out $(@D)

$(if $(filter student-prevalence,$(MAKECMDGOALS) $(ARMS)),$(if $(PREVALENCE),,$(error student-prevalence needs the share of obliterated patients: PREVALENCE=0.25)))
student-prevalence: $(RUN)/student-prevalence/predictions.csv ## an arm: student-mae's ranks as probabilities, by PREVALENCE
$(RUN)/student-prevalence/predictions.csv: $(RUN)/student-mae/predictions_all.csv
	$(POD) adjust $(<D) --prevalence $(PREVALENCE) --out $(@D)

RESTING_ON_COVARIATES := $(firstword $(filter covariates covariates--own student student--%,$(filter-out student--compute,$(MAKECMDGOALS) $(STAGE) $(ARMS))))
$(if $(RESTING_ON_COVARIATES),$(if $(strip $(COVARIATES)),,$(error $(RESTING_ON_COVARIATES) needs columns of both manifests: COVARIATES=age,pain)))
COMMA := ,
# Else the student would say so when all that it builds on is trained.
NO_COLUMN := $(if $(and $(OF_A_COHORT),$(RESTING_ON_COVARIATES)),$(shell for file in $(wildcard $(MANIFESTS)); do for name in $(subst $(COMMA), ,$(COVARIATES)); do \
  if [ -s $$file ] && ! head -n 1 $$file | tr -d '\r' | tr ',' '\n' | grep -qxF "$$name"; then echo "$$file has no column $$name"; exit; fi; done; done))
$(if $(NO_COLUMN),$(error $(RESTING_ON_COVARIATES) rests on COVARIATES=$(COVARIATES), but $(NO_COLUMN): name columns of both manifests))
# $(call IN_ARGS,<key>): the value that ARGS gives to a key of the profile, if any.
IN_ARGS = $(patsubst --profile.$(1)=%,%,$(lastword $(filter --profile.$(1)=%,$(subst --profile.$(1) ,--profile.$(1)=,$(ARGS)))))
N_LABELLED := $(or $(LABELS),$(call IN_ARGS,n_labelled),$(call PROFILE_VALUE,n_labelled))
N_UNLABELLED := $(or $(call IN_ARGS,n_unlabelled),$(call PROFILE_VALUE,n_unlabelled))
N_CLIPS    := $(or $(call IN_ARGS,n_labelled_clips),$(call PROFILE_VALUE,n_labelled_clips))
covariates: $(RUN)/covariates/predictions.csv ## COVARIATES without any image: a logistic model of the clips' labels
covariates--own: $(RUN)/covariates--own/predictions.csv ## its control: the same of the labelled volumes' labels
$(patsubst %,$(RUN)/%/predictions.csv,covariates covariates--own): $(MANIFESTS) | $(SETUP)
	$(POD) logistic --cohort $(COHORT) --fold $(FOLD) --seed $(SEED) $(N_LABELLED:%=--n_labelled %) \
	  $(N_CLIPS:%=--n_labelled_clips %) $(N_UNLABELLED:%=--n_unlabelled %) $(NOISE:%=--label_noise %) --covariates $(subst $(COMMA), ,$(COVARIATES)) --fit_on $(if $(filter %--own,$(@D)),mri,tvus)-labels --out $(@D)

ifneq ($(UPRUN),$(RUN))
UPSTREAM := mae joint-mae teacher $(TEACHERS)
$(UPSTREAM:%=$(RUN)/%/checkpoints/best.ckpt): $(RUN)/%/checkpoints/best.ckpt: $(UPRUN)/%/checkpoints/best.ckpt
	@mkdir -p $(RUN); ln -sfn $(if $(REPLICATE),../)../../$(COMMON)/$(PLACE)/$* $(RUN)/$*
endif

arms: $(ARMS) ## every one of ARMS="student student-mae ..." (experiments/pod/arms)

# A fit writes its predictions itself; this is for one that was killed between its last epoch and them.
$(patsubst %,$(RUN)/%/predictions.csv,teacher $(ALL_ARMS)): %/predictions.csv: %/checkpoints/best.ckpt
	@if [ ! $@ -nt $< ]; then $(LAUNCH) $(POD) test --config $*/config.yaml --ckpt_path $<; fi

# Those of every case, which a second stage of self-training learns from.
$(ALL_ARMS:%=$(RUN)/%/predictions_all.csv): %/predictions_all.csv: %/checkpoints/best.ckpt
	$(LAUNCH) $(POD) predict --config $*/config.yaml --ckpt_path $<

baselines: $(BASELINES) ## student-mae, student-paper, student-kd and student-scratch

# ---------------------------------------------------------------- the result
KIND := $(if $(filter $(SIMULATED),$(COHORT)),--simulated)
report: $(RUN)/report/index.html ## the table and the report over this seed and fold
$(RUN)/report/index.html: $(METHODS:%=$(RUN)/%/predictions.csv)
	$(POD) compare $(RUN) --out $(RUN)/report $(KIND)

pipeline: report ## all stages, the baselines and the report

# Whether an image alone tells more than the covariates by themselves, and whether the clips' labels would have done.
# $(call pairs,<arm>,<others>): the arm and each of the others, where ARMS has them; the baseline is compared with all anyway.
COMPARED := $(filter-out $(BASELINE),$(ARMS))
pairs  = $(if $(filter $(1),$(COMPARED)),$(patsubst %,--pair $(1) %,$(filter $(2),$(COMPARED))))
CLIPS := student-covariates-labels student-covariates-both
PAIRS := $(call pairs,student,covariates $(CLIPS) student-covariates-order) $(call pairs,student-covariates-order,$(CLIPS))
# Each replicate of a simulated study has its own patients, also to pre-train and to teach. Others, such as those that a
# recipe was tuned on, may lie beside them.
# $(call STUDIED,<name>): the folders of a study's runs. A cohort that was named is the one, simulated or not.
REPLICATED := $(if $(filter file,$(origin COHORT)),$(filter $(SIMULATED),$(COHORT)))
ifneq ($(REPLICATED),)
STUDIES = $(RUNS)/replicates
STUDIED = $(shell seq -f '$(STUDIES)/$(1)/cohort%.0f' $(FIRST) $$(($(FIRST) + $(SEEDS) - 1)))
else
STUDIES = $(RUNS)
STUDIED = $(STUDIES)/$(1)
endif
study: $(SETUP) ## ARMS over SEEDS, each on a simulated cohort of its own (from seed FIRST), or over seeds and FOLDS of COHORT
ifneq ($(REPLICATED),)
	@for seed in $$(seq 0 $$(($(SEEDS) - 1))); do $(MAKE) --no-print-directory -j$(JOBS) pipeline PROFILE=$(PROFILE) RUNS=$(RUNS)/replicates \
	  REPLICATE=$$(($(FIRST) + seed)) SEED=$$seed OMP_NUM_THREADS=$(OMP_THREADS) || exit 1; done
	$(POD) compare $(call STUDIED,$(NAME)) --out $(STUDIES)/$(NAME)/report --baseline $(BASELINE) --simulated $(PAIRS)
	$(if $(PUBLISH),$(BIN)/python benchmarks/results.py $(STUDIES)/$(NAME))
else
	@for seed in $$(seq 0 $$(($(SEEDS) - 1))); do for fold in $$(seq 0 $$(($(FOLDS) - 1))); do \
	  $(MAKE) --no-print-directory pipeline PROFILE=$(PROFILE) SEED=$$seed FOLD=$$fold || exit 1; done; done
	$(POD) compare $(call STUDIED,$(NAME)) --out $(STUDIES)/$(NAME)/study --baseline $(BASELINE) $(KIND) $(PAIRS)
endif

curve: $(SETUP) ## a study with each of NUMBERS labels, and AUROC against their number
	@for labels in $(NUMBERS); do $(MAKE) --no-print-directory study LABELS=$$labels || exit 1; done
	$(POD) curve $(foreach n,$(NUMBERS),$(addprefix $(n)=,$(call STUDIED,$(COMMON)-$(n)labels$(NOISE:%=-%noise)$(BOTH:%=-%both)))) --baseline $(BASELINE) --out $(STUDIES)/$(NAME)-curve

dashboard: $(RUN)/report/index.html ## opens the comparison in the browser
	@$(BIN)/python -m webbrowser -t "file://$(abspath $<)" || true
	@echo "report: $<"
	@echo "W&B:    $(BIN)/wandb sync $(RUN)/*/wandb/offline-run-*   (after: $(BIN)/wandb login)"

slurm: $(SETUP) ## submits a stage to SLURM: make slurm STAGE=mae NODES=2 DEVICES=8
	@test -n "$(STAGE)" || { echo "error: STAGE is not set: make slurm STAGE=mae" >&2; exit 1; }
	@mkdir -p $(RUN)
	sbatch --job-name=$(STAGE) --nodes=$(NODES) --ntasks-per-node=$(DEVICES) --output=$(RUN)/slurm-$(STAGE)-%j.log $(SBATCH_ARGS) \
	  experiments/slurm/stage.sbatch $(STAGE) PROFILE=$(PROFILE) COHORT=$(COHORT) RUNS=$(RUNS) SEED=$(SEED) FOLD=$(FOLD) DEVICES=$(DEVICES) NODES=$(NODES) STRATEGY=$(STRATEGY) 'ARGS=$(subst ','\'',$(ARGS))'

bench: $(SETUP) ## every benchmark of speed, with the libraries that they compare with (hours, on an otherwise idle machine)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,bench]'
	@for script in $(BENCHMARKS); do echo "benchmarks/$$script.py"; $(BIN)/python benchmarks/$$script.py || exit 1; done

clean: ## removes the simulated cohorts of demo and study, and the runs on them; those with LABELS, NOISE, BOTH or REGIME stay, and .venv
	rm -rf cohorts/.*.partial.* $(foreach profile,$(SIMULATED_PROFILES),cohorts/$(profile)-replicates $(RUNS)/replicates/$(profile))
	@gone=; for cohort in $(SIMULATED_PROFILES:%=cohorts/%); do \
	  if [ -e $$cohort ] && ! grep -qsxF '$(KNOWN_KEY)' $$cohort.key; then echo "$$cohort stays: its key is not that of simulated patients"; \
	  else rm -rf $$cohort $$cohort-hospital $$cohort.key; gone="$$gone|$$cohort"; fi; done; \
	for run in $(SIMULATED_PROFILES:%=$(RUNS)/%/*); do \
	  other=$$(grep -hs '^cohort: ' $$run/*/config.yaml | grep -vxE "cohort: ($${gone#|})" | head -1); \
	  if [ -n "$$other" ]; then echo "$$run stays: it holds runs of $${other#cohort: }"; else rm -rf $$run; fi; done
