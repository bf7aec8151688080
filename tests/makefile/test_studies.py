"""What make would do for a study: replicates, seeds and folds, numbers of labels, the comparison."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from data_modules.simulate.settings import SimulationSettings

ROOT = Path(__file__).parents[2]
DryRun = Callable[..., str]


def test_a_simulated_study_has_new_patients_in_every_replicate(dry_run: DryRun, tmp_path: Path) -> None:
    plan = dry_run("study", "SEEDS=2", "FIRST=9001", "ARMS=student-mae student-scratch", f"RUNS={tmp_path}")
    for seed, replicate in enumerate((9001, 9002)):
        cohort, run = (
            f"cohorts/study-replicates/{replicate}",
            f"{tmp_path}/replicates/study/cohort{replicate}/seed{seed}-fold0",
        )
        assert f"simulate --out {cohort}-hospital --seed {replicate} " in plan
        assert f"--run {run}/mae --method mae --cohort {cohort} --fold 0 --seed_everything {seed} " in plan
        assert f"--run {run}/student-scratch " in plan
        assert f"--run {run}/student " not in plan
    study = f"{tmp_path}/replicates/study"
    replicates = f"{study}/cohort9001 {study}/cohort9002"
    assert f"compare {replicates} --out {study}/report --baseline student-mae --simulated" in plan
    assert "--pair" not in plan
    assert "results.py" not in plan, "published results stay unless it is asked for"
    order = "student-covariates-order"
    options = (
        f"ARMS=student student-mae covariates student-covariates-labels {order}",
        f"RUNS={tmp_path}",
        "PUBLISH=1",
    )
    plan = dry_run("study", "SEEDS=2", "FIRST=9001", *options)
    pairs = [f"student {name}" for name in ("covariates", "student-covariates-labels", order)]
    pairs.append(f"{order} student-covariates-labels")
    assert " ".join(["--baseline student-mae --simulated", *(f"--pair {pair}" for pair in pairs)]) in plan
    assert f"benchmarks/results.py {study}" in plan


def test_a_study_compares_with_the_arm_that_is_named(dry_run: DryRun, tmp_path: Path) -> None:
    arms = "ARMS=student-covariates-labels student student-covariates-order student-covariates-order--dealt"
    options = ("study", "SEEDS=1", "FIRST=9001", arms, f"RUNS={tmp_path}")
    plan = dry_run(*options, "BASELINE=student-covariates-labels")
    comparison = plan[plan.index("--baseline") :].splitlines()[0].strip()
    assert comparison == "--baseline student-covariates-labels --simulated --pair student student-covariates-order", (
        "a pair with the baseline is there already"
    )
    with pytest.raises(subprocess.CalledProcessError) as refused:
        dry_run(*options)
    assert "BASELINE=student-mae is none of ARMS=student-covariates-labels student " in refused.value.stderr


def test_a_curve_is_a_study_with_each_number_of_labels(dry_run: DryRun, tmp_path: Path) -> None:
    plan = dry_run("curve", "SEEDS=2", "FIRST=9001", "NUMBERS=20 40", "ARMS=student-mae", f"RUNS={tmp_path}")
    base = f"{tmp_path}/replicates/study"
    for number in (20, 40):
        assert f"--run {base}-{number}labels/cohort9002/seed1-fold0/student-mae " in plan
        assert f"--out {base}-{number}labels/report " in plan
    assert plan.count(f"--run {base}/cohort9001/seed0-fold0/mae ") == 2, "not made yet when either is planned"
    points = " ".join(f"{n}={base}-{n}labels/cohort{c}" for n in (20, 40) for c in (9001, 9002))
    assert f"curve {points} --baseline student-mae --out {base}-curve" in plan


def test_a_curve_on_a_real_cohort_takes_its_runs(dry_run: DryRun, finished: Path) -> None:
    options = (
        "PROFILE=demo",
        "NUMBERS=20 40",
        f"RUNS={finished}/runs",
        f"COHORT={finished}/cohort",
        "ARMS=student-mae",
    )
    plan = dry_run("curve", "SEEDS=1", *options)
    points = " ".join(f"{n}={finished}/runs/demo-{n}labels" for n in (20, 40))
    assert f"curve {points} --baseline student-mae --out {finished}/runs/demo-curve" in plan


def test_a_study_of_a_real_cohort_adds_the_missing_seeds_and_folds(dry_run: DryRun, finished: Path) -> None:
    plan = dry_run("study", "PROFILE=demo", "SEEDS=2", "FOLDS=2", f"RUNS={finished}/runs", f"COHORT={finished}/cohort")
    runs = {f"seed{seed}-fold{fold}" for seed in (0, 1) for fold in (0, 1)}
    assert {run for run in runs if f"--run {finished}/runs/demo/{run}/student " in plan} == runs - {"seed0-fold0"}
    assert "simulate" not in plan


@pytest.mark.parametrize(("labels", "steps_an_epoch"), [(160, 8), (30, 1), (10, 1)])
def test_other_labels_train_students_as_long_on_the_same_upstream_stages(
    dry_run: DryRun, labels: int, steps_an_epoch: int, cohort: Path, tmp_path: Path
) -> None:
    options = (f"COHORT={cohort}", f"RUNS={tmp_path}/runs", "PROFILE=study", "REPLICATE=7", f"LABELS={labels}")
    options += ("NOISE=0.15",)
    plan = dry_run("arms", *options, "ARMS=student-mae student-kd--shuffled")
    shared, own = (
        f"{tmp_path}/runs/{name}/cohort7/seed0-fold0" for name in ("study", f"study-{labels}labels-0.15noise")
    )
    for stage in ("mae", "teacher", "teacher-shuffled"):
        assert f"--run {shared}/{stage} " in plan
        assert f"ln -sfn ../../../study/cohort7/seed0-fold0/{stage} {own}/{stage}" in plan
    (line,) = (line for line in plan.split("poddistill fit ") if "--method student-mae " in line)
    assert f"--run {own}/student-mae " in line
    values = dict(zip(line.split(), line.split()[1:], strict=False))
    study = yaml.safe_load((ROOT / "experiments/pod/study.yaml").read_text())["profile"]
    for key in ("student_epochs", "student_validate_every", "student_warmup_epochs"):
        assert float(values[f"--profile.{key}"]) == study[key] * 4 / steps_an_epoch, "80 labels make 4 batches of 20"
    alpha = float(values["--profile.student_alpha"])
    assert alpha ** (4 / steps_an_epoch) == pytest.approx(study["student_alpha"], rel=1e-4), (
        "as much after as many steps"
    )
    assert values["--profile.n_labelled"] == str(labels)
    assert values["--data.init_args.mri.init_args.label_noise"] == "0.15"
    assert plan.count("label_noise") == 2, "teachers and pre-training know nothing of it"


@pytest.mark.parametrize(("devices", "epochs"), [(1, 1600), (2, 800), (4, 400)])
def test_the_steps_are_those_of_as_many_processes(
    dry_run: DryRun, devices: int, epochs: int, cohort: Path, tmp_path: Path
) -> None:
    """Of 80 labels each process has 80, 40 or 20, in 4, 2 or 1 batches of 20; of 10 labels always one batch."""
    options = (f"COHORT={cohort}", f"RUNS={tmp_path}", "PROFILE=study", "LABELS=10")
    assert f"--profile.student_epochs {epochs} " in dry_run("student-mae", *options, f"DEVICES={devices}")


def test_labels_of_a_profile_that_takes_all_are_told(cohort: Path) -> None:
    command = ["make", "--dry-run", "student-mae", "PROFILE=paper", f"COHORT={cohort}", "LABELS=80"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "LABELS needs a profile whose n_labelled is a number" in result.stderr


def test_prevalence_mapping_is_told_what_the_patients_were_simulated_with(
    dry_run: DryRun, cohort: Path, tmp_path: Path
) -> None:
    arm = ("arms", f"RUNS={tmp_path}", "ARMS=student-prevalence")
    run = f"{tmp_path}/demo/seed0-fold0"
    default = SimulationSettings().prevalence
    for prevalence, options in (
        (default, []),
        ("0.1", ["SIMULATE_ARGS=--n_labelled 60 --prevalence 0.1 --n_clips 9"]),
        ("0.2", ["SIMULATE_ARGS=--prevalence=0.1", "PREVALENCE=0.2"]),
        ("0.3", [f"COHORT={cohort}", "PREVALENCE=0.3"]),
    ):
        plan = dry_run(*arm, *options)
        assert f"adjust {run}/student-mae --prevalence {prevalence} --out {run}/student-prevalence" in plan
        assert f"predict --config {run}/student-mae/config.yaml" in plan
        assert plan.count("poddistill fit ") == 2, "the MAE and student-mae"
    command = ["make", "--dry-run", *arm, f"COHORT={cohort}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "needs the share of obliterated patients: PREVALENCE=0.25" in result.stderr


def test_a_study_of_a_named_cohort_takes_no_replicates_for_others_patients(dry_run: DryRun, tmp_path: Path) -> None:
    plan = dry_run("study", "SEEDS=2", "COHORT=cohorts/study", "ARMS=student-mae", f"RUNS={tmp_path}")
    assert f"{tmp_path}/study/seed1-fold0/student-mae" in plan
    assert "cohort101" not in plan
    assert f"compare {tmp_path}/study --out {tmp_path}/study/study --baseline student-mae --simulated" in plan
