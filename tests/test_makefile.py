"""What make would do: the pipeline is files, so it builds what is missing and what depends on it, and nothing else."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from data_modules.simulate.settings import SimulationSettings

ROOT = Path(__file__).parents[1]
METHODS = ("teacher", "student", "student-mae", "student-paper", "student-scratch")


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A folder with a cohort and every file of a finished pipeline, in the order in which they are made."""
    run = tmp_path / "runs/demo/seed0-fold0"
    files = [tmp_path / "cohort/mri.csv", tmp_path / "cohort/tvus.csv"]
    for stage in ("mae", *METHODS):
        files += [run / stage / "checkpoints/last.ckpt", run / stage / "checkpoints/best.ckpt"]
        files += [run / stage / "predictions.csv"] if stage != "mae" else []
    for age, file in enumerate([*files, run / "covariates/predictions.csv", run / "report/index.html"]):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (1_000_000_000 + age, 1_000_000_000 + age))
    return tmp_path


def finished_cohort(folder: Path) -> Path:
    """A folder with the manifests of a cohort."""
    cohort = folder / "cohort"
    cohort.mkdir()
    for modality in ("mri", "tvus"):
        (cohort / f"{modality}.csv").touch()
    return cohort


def planned(folder: Path, *arguments: str) -> set[str]:
    """Names of the stages that a dry run of make would fit, test or compare."""
    command = ["make", "--dry-run", "--no-print-directory", f"COHORT={folder / 'cohort'}", f"RUNS={folder / 'runs'}"]
    result = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    stages = {stage for stage in ("mae", *METHODS) if f"--method {stage} " in result.stdout}
    stages |= {f"test {stage}" for stage in METHODS if f"{stage}/config.yaml --ckpt_path" in result.stdout}
    return stages | ({"report"} if "poddistill compare" in result.stdout else set())


def test_a_second_make_does_nothing(finished: Path) -> None:
    assert planned(finished, "pipeline") == set()


@pytest.mark.parametrize(
    ("deleted", "rebuilt"),
    [
        ("mae", {"mae", "student", "student-mae", "student-paper"}),
        ("teacher", {"teacher", "student", "student-paper"}),
        ("student-scratch", {"student-scratch"}),
    ],
)
def test_a_deleted_checkpoint_rebuilds_only_what_follows(finished: Path, deleted: str, rebuilt: set[str]) -> None:
    (finished / f"runs/demo/seed0-fold0/{deleted}/checkpoints/best.ckpt").unlink()
    plan = planned(finished, "pipeline")
    assert {stage for stage in plan if stage in ("mae", *METHODS)} == rebuilt
    assert "report" in plan


def test_deleted_predictions_are_made_from_the_checkpoint(finished: Path) -> None:
    (finished / "runs/demo/seed0-fold0/student/predictions.csv").unlink()
    assert planned(finished, "pipeline") == {"test student", "report"}


def test_scoring_is_launched_as_training_is(finished: Path) -> None:
    folders = (f"COHORT={finished / 'cohort'}", f"RUNS={finished / 'runs'}", "LAUNCH=srun")
    run = finished / "runs/demo/seed0-fold0"
    (run / "student/predictions.csv").unlink()
    plan = dry_run(*folders, "student", str(run / "student-mae/predictions_all.csv"))
    assert "srun .venv/bin/poddistill test " in plan
    assert "srun .venv/bin/poddistill predict " in plan


def test_a_changed_cohort_rebuilds_everything(finished: Path) -> None:
    (finished / "cohort/mri.csv").touch()
    assert {"mae", *METHODS, "report"} <= planned(finished, "pipeline")


def dry_run(*arguments: str) -> str:
    command = ["make", "--dry-run", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_a_simulated_study_has_new_patients_in_every_replicate(tmp_path: Path) -> None:
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


def test_a_curve_is_a_study_with_each_number_of_labels(tmp_path: Path) -> None:
    plan = dry_run("curve", "SEEDS=2", "FIRST=9001", "NUMBERS=20 40", "ARMS=student-mae", f"RUNS={tmp_path}")
    base = f"{tmp_path}/replicates/study"
    for number in (20, 40):
        assert f"--run {base}-{number}labels/cohort9002/seed1-fold0/student-mae " in plan
        assert f"--out {base}-{number}labels/report " in plan
    assert plan.count(f"--run {base}/cohort9001/seed0-fold0/mae ") == 2, "not made yet when either is planned"
    points = " ".join(f"{n}={base}-{n}labels/cohort{c}" for n in (20, 40) for c in (9001, 9002))
    assert f"curve {points} --baseline student-mae --out {base}-curve" in plan


def test_a_curve_on_a_real_cohort_takes_its_runs(finished: Path) -> None:
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


def test_a_study_of_a_real_cohort_adds_the_missing_seeds_and_folds(finished: Path) -> None:
    plan = dry_run("study", "PROFILE=demo", "SEEDS=2", "FOLDS=2", f"RUNS={finished}/runs", f"COHORT={finished}/cohort")
    runs = {f"seed{seed}-fold{fold}" for seed in (0, 1) for fold in (0, 1)}
    assert {run for run in runs if f"--run {finished}/runs/demo/{run}/student " in plan} == runs - {"seed0-fold0"}
    assert "simulate" not in plan


def test_an_arm_builds_on_what_its_configurations_name(tmp_path: Path) -> None:
    cohort = finished_cohort(tmp_path)
    plan = dry_run("arms", f"COHORT={cohort}", f"RUNS={tmp_path}", "ARMS=student-kd student-kd--untrained")
    assert "--method mae " not in plan
    for method in ("teacher", "teacher-untrained", "student-kd", "student-kd--untrained"):
        assert f"--method {method} " in plan
    (line,) = (line for line in plan.split("poddistill fit ") if "--method student-kd--untrained " in line)
    assert "arms/student-kd.yaml --config experiments/pod/controls/untrained.yaml" in line


def test_an_arm_runs_the_stage_that_its_name_begins_with(tmp_path: Path) -> None:
    cohort = finished_cohort(tmp_path)
    arms = {"student-mae": "student", "joint-student": "joint-student", "joint-student-shuffled": "joint-student"}
    plan = dry_run("arms", f"COHORT={cohort}", f"RUNS={tmp_path}", f"ARMS={' '.join(arms)}")
    fits = {line.split("--method ")[1].split()[0]: line for line in plan.split("poddistill fit ")[1:]}
    assert set(fits) == {"mae", "joint-mae", *arms}
    for arm, stage in arms.items():
        assert f"--config experiments/pod/{stage}.yaml --run" in " ".join(fits[arm].replace("\\", "").split())
        assert f"--config experiments/pod/arms/{arm}.yaml" in fits[arm]


def test_the_shared_student_builds_on_the_shared_pretraining_alone(tmp_path: Path) -> None:
    plan = dry_run("joint-student", f"COHORT={finished_cohort(tmp_path)}", f"RUNS={tmp_path}")
    assert [part.split()[0] for part in plan.split("--method ")[1:]] == ["joint-mae", "joint-student"]
    assert f"--config {tmp_path}/demo/seed0-fold0/joint-student/config.yaml" in plan, "predictions of a killed run"


@pytest.mark.parametrize(("labels", "steps_an_epoch"), [(160, 8), (30, 1), (10, 1)])
def test_other_labels_train_students_as_long_on_the_same_upstream_stages(
    labels: int, steps_an_epoch: int, tmp_path: Path
) -> None:
    cohort = finished_cohort(tmp_path)
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
def test_the_steps_are_those_of_as_many_processes(devices: int, epochs: int, tmp_path: Path) -> None:
    """Of 80 labels each process has 80, 40 or 20, in 4, 2 or 1 batches of 20; of 10 labels always one batch."""
    options = (f"COHORT={finished_cohort(tmp_path)}", f"RUNS={tmp_path}", "PROFILE=study", "LABELS=10")
    assert f"--profile.student_epochs {epochs} " in dry_run("student-mae", *options, f"DEVICES={devices}")


def test_labels_of_a_profile_that_takes_all_are_told(tmp_path: Path) -> None:
    command = ["make", "--dry-run", "student-mae", "PROFILE=paper", f"COHORT={finished_cohort(tmp_path)}", "LABELS=80"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "LABELS needs a profile whose n_labelled is a number" in result.stderr


def test_an_ensemble_averages_members_of_the_same_labelled_draw(tmp_path: Path) -> None:
    cohort = finished_cohort(tmp_path)
    plan = dry_run("arms", f"COHORT={cohort}", f"RUNS={tmp_path}", "SEED=3", "ARMS=student-ensemble")
    run = f"{tmp_path}/demo/seed3-fold0"
    members = " ".join(f"{run}/student-mae{member}" for member in ("", "@1", "@2", "@3", "@4"))
    assert f"poddistill ensemble {members} --out {run}/student-ensemble" in plan
    (line,) = (line for line in plan.split("poddistill fit ") if "--method student-mae@2 " in line)
    assert "arms/student-mae.yaml --seed_everything 23 --data.init_args.mri.init_args.seed 3" in line
    assert "--data.init_args.tvus.init_args.seed 3" in line


def test_prevalence_mapping_is_told_what_the_patients_were_simulated_with(tmp_path: Path) -> None:
    arm = ("arms", f"RUNS={tmp_path}", "ARMS=student-prevalence")
    run = f"{tmp_path}/demo/seed0-fold0"
    default = SimulationSettings().prevalence
    for prevalence, options in (
        (default, []),
        ("0.1", ["SIMULATE_ARGS=--n_labelled 60 --prevalence 0.1 --n_clips 9"]),
        ("0.2", ["SIMULATE_ARGS=--prevalence=0.1", "PREVALENCE=0.2"]),
        ("0.3", [f"COHORT={finished_cohort(tmp_path)}", "PREVALENCE=0.3"]),
    ):
        plan = dry_run(*arm, *options)
        assert f"adjust {run}/student-mae --prevalence {prevalence} --out {run}/student-prevalence" in plan
        assert f"predict --config {run}/student-mae/config.yaml" in plan
        assert plan.count("poddistill fit ") == 2, "the MAE and student-mae"
    command = ["make", "--dry-run", *arm, f"COHORT={tmp_path / 'cohort'}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "needs the share of obliterated patients: PREVALENCE=0.25" in result.stderr


def test_covariates_alone_are_fitted_on_the_draw_of_the_students_and_train_nothing(tmp_path: Path) -> None:
    arms = ("arms", f"COHORT={finished_cohort(tmp_path)}", f"RUNS={tmp_path}", "ARMS=covariates covariates--own")
    chosen = ("PROFILE=study", "SEED=3", "FOLD=1", "LABELS=20", "NOISE=0.15", "COVARIATES=age, pain,ca125")
    for options, folder, words in (
        (
            chosen,
            "study-20labels-0.15noise/seed3-fold1",
            "--n_labelled 20 --label_noise 0.15 --covariates age pain ca125",
        ),
        (("PROFILE=demo",), "demo/seed0-fold0", "--n_labelled 160 --covariates age parity pain ca125"),
        (("PROFILE=paper", "COVARIATES=age"), "paper/seed0-fold0", "--fold 0 --seed 0 --covariates age"),
        (
            ("PROFILE=paper", "COVARIATES=age", "ARGS=--profile.n_labelled 20 --profile.student_epochs 9"),
            "paper/seed0-fold0",
            "--seed 0 --n_labelled 20 --covariates age",
        ),
        (
            ("PROFILE=study", "COVARIATES=age", "ARGS=--profile.n_labelled_clips=60 --profile.teacher_epochs 90"),
            "study/seed0-fold0",
            "--n_labelled 80 --n_labelled_clips 60 --covariates age",
        ),
    ):
        plan = " ".join(dry_run(*arms, *options).replace("\\\n", "").split())
        assert "poddistill fit" not in plan
        for method, fit_on in (("covariates", "tvus-labels"), ("covariates--own", "mri-labels")):
            assert f"{words} --fit_on {fit_on} --out {tmp_path}/{folder}/{method}" in plan
    assert " --fold 1 --seed 3 " in dry_run(*arms, *chosen)
    command = ["make", "--dry-run", *arms, "PROFILE=paper"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "covariates needs columns of both manifests: COVARIATES=age,pain" in result.stderr


def test_an_arm_that_is_not_there_is_named(tmp_path: Path) -> None:
    command = ["make", "--dry-run", "arms", "ARMS=student-mae student-kd--nothing", f"RUNS={tmp_path}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "ARMS names student-kd--nothing, but there is no experiments/pod/controls/nothing.yaml" in result.stderr


def test_a_control_for_unlabelled_volumes_is_for_arms_that_have_some(tmp_path: Path) -> None:
    command = ["make", "--dry-run", "arms", f"RUNS={tmp_path}"]
    result = subprocess.run(
        [*command, "ARMS=student-paper--compute"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "student-paper--compute would pass more volumes than its arm" in result.stderr
    assert f"--run {tmp_path}/demo/seed0-fold0/student--compute " in dry_run(
        "arms", "ARMS=student--compute", f"RUNS={tmp_path}"
    )


def test_clean_leaves_every_training_on_a_users_cohort(tmp_path: Path) -> None:
    plan = dry_run("clean", "PROFILE=paper", "COHORT=cohorts/hospital", f"RUNS={tmp_path}")
    assert f"{tmp_path}/demo" in plan
    assert f"{tmp_path}/paper" not in plan
    assert "cohorts/hospital" not in plan
    runs = {name: tmp_path / "runs" / name for name in ("demo/seed0-fold0", "demo/seed1-fold0", "study/seed0-fold0")}
    for folder, cohort in zip(runs.values(), ("cohorts/demo", "cohorts/hospital", "cohorts/study"), strict=True):
        (folder / "mae").mkdir(parents=True)
        (folder / "mae/config.yaml").write_text(f"cohort: {cohort}\n")
    (tmp_path / "cohorts/demo").mkdir(parents=True)
    (tmp_path / "cohorts/hospital").mkdir()
    shutil.copytree(ROOT / "experiments/pod", tmp_path / "experiments/pod")
    command = ["make", "--no-print-directory", "-f", str(ROOT / "Makefile"), "clean"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "runs/demo/seed1-fold0 stays: it holds runs of cohorts/hospital" in told
    assert [name for name, folder in runs.items() if folder.exists()] == ["demo/seed1-fold0"]
    assert [folder.name for folder in (tmp_path / "cohorts").iterdir()] == ["hospital"]


def test_a_missing_cohort_is_told(tmp_path: Path) -> None:
    command = ["make", f"COHORT={tmp_path / 'nowhere'}", f"RUNS={tmp_path}", "mae"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "mri.csv is missing" in result.stderr
    assert "poddistill ingest" in result.stderr


def test_runs_of_another_cohort_are_not_taken_for_those_of_this_one(finished: Path) -> None:
    (finished / "runs/demo/seed0-fold0/mae/config.yaml").write_text(f"data:\n  cohort: x\ncohort: {finished}/cohort\n")
    assert planned(finished, "pipeline") == set()
    (finished / "cohort").rename(finished / "moved")
    command = ["make", "--dry-run", "pipeline", f"COHORT={finished}/moved", f"RUNS={finished}/runs"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"seed0-fold0 holds runs of COHORT={finished}/cohort: name that one, or give {finished}/moved" in done.stderr
    fewer = subprocess.run([*command, "LABELS=20"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert fewer.returncode != 0
    assert f"{finished}/runs/demo/seed0-fold0 holds runs of COHORT={finished}/cohort" in fewer.stderr


def test_a_study_of_a_named_cohort_takes_no_replicates_for_others_patients(tmp_path: Path) -> None:
    plan = dry_run("study", "SEEDS=2", "COHORT=cohorts/study", "ARMS=student-mae", f"RUNS={tmp_path}")
    assert f"{tmp_path}/study/seed1-fold0/student-mae" in plan
    assert "cohort101" not in plan
    assert f"compare {tmp_path}/study --out {tmp_path}/study/study --baseline student-mae --simulated" in plan


def test_an_arm_can_be_asked_for_by_its_name_alone(tmp_path: Path) -> None:
    options = (f"COHORT={finished_cohort(tmp_path)}", f"RUNS={tmp_path}/runs")
    assert "--method student-kl--shuffled " in dry_run("student-kl--shuffled", *options)
    command = ["make", "--dry-run", "student", "PROFILE=paper", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "student needs columns of both manifests: COVARIATES=age,pain" in done.stderr


def test_a_finished_checkpoint_outlives_an_interrupted_test(tmp_path: Path) -> None:
    options = (f"COHORT={finished_cohort(tmp_path)}", f"RUNS={tmp_path}/runs")
    command = ["make", "--print-data-base", "--dry-run", "student-mae", *options]
    rules = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    kept = {word for line in rules.splitlines() if line.startswith(".PRECIOUS:") for word in line.split()}
    for stage in ("mae", "teacher", "student-mae"):
        assert f"{tmp_path}/runs/demo/seed0-fold0/{stage}/checkpoints/best.ckpt" in kept


def test_help_lists_every_target() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = (
        "demo test lint cohort mae joint-mae teacher student joint-student arms baselines report pipeline study curve "
        "slurm dashboard bench clean"
    )
    for target in targets.split():
        assert f"\n{target} " in f"\n{listed}", f"{target} is not in make help"


def test_the_recipe_with_covariates_is_trained_where_there_are_some(tmp_path: Path) -> None:
    options = ("pipeline", "PROFILE=paper", f"COHORT={finished_cohort(tmp_path)}", f"RUNS={tmp_path}/runs")
    assert "--method student " not in dry_run(*options)
    (line,) = (
        line
        for line in dry_run(*options, "COVARIATES=age, pain").split("poddistill fit ")
        if "--method student " in line
    )
    assert '--profile.covariates "[age, pain]"' in line
    assert "--profile.covariates" not in dry_run("student", f"RUNS={tmp_path}/runs"), "the profile names its own"
