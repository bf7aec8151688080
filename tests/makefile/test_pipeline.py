"""What make would do: the pipeline is files, so it builds what is missing and what depends on it, and nothing else."""

import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
METHODS = ("teacher", "student", "student-mae", "student-paper", "student-scratch")
DryRun = Callable[..., str]


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


def test_scoring_is_launched_as_training_is(dry_run: DryRun, finished: Path) -> None:
    folders = (f"COHORT={finished / 'cohort'}", f"RUNS={finished / 'runs'}", "LAUNCH=srun")
    run = finished / "runs/demo/seed0-fold0"
    (run / "student/predictions.csv").unlink()
    plan = dry_run(*folders, "student", str(run / "student-mae/predictions_all.csv"))
    assert "srun .venv/bin/poddistill test " in plan
    assert "srun .venv/bin/poddistill predict " in plan


def test_a_changed_cohort_rebuilds_everything(finished: Path) -> None:
    (finished / "cohort/mri.csv").touch()
    assert {"mae", *METHODS, "report"} <= planned(finished, "pipeline")


def test_an_arm_builds_on_what_its_configurations_name(dry_run: DryRun, cohort: Path, tmp_path: Path) -> None:
    plan = dry_run("arms", f"COHORT={cohort}", f"RUNS={tmp_path}", "ARMS=student-kd student-kd--untrained")
    assert "--method mae " not in plan
    for method in ("teacher", "teacher-untrained", "student-kd", "student-kd--untrained"):
        assert f"--method {method} " in plan
    (line,) = (line for line in plan.split("poddistill fit ") if "--method student-kd--untrained " in line)
    assert "arms/student-kd.yaml --config experiments/pod/controls/untrained.yaml" in line


def test_an_arm_runs_the_stage_that_its_name_begins_with(dry_run: DryRun, cohort: Path, tmp_path: Path) -> None:
    arms = {"student-mae": "student", "joint-student": "joint-student", "joint-student-shuffled": "joint-student"}
    plan = dry_run("arms", f"COHORT={cohort}", f"RUNS={tmp_path}", f"ARMS={' '.join(arms)}")
    fits = {line.split("--method ")[1].split()[0]: line for line in plan.split("poddistill fit ")[1:]}
    assert set(fits) == {"mae", "joint-mae", *arms}
    for arm, stage in arms.items():
        assert f"--config experiments/pod/{stage}.yaml --run" in " ".join(fits[arm].replace("\\", "").split())
        assert f"--config experiments/pod/arms/{arm}.yaml" in fits[arm]


def test_the_shared_student_builds_on_the_shared_pretraining_alone(
    dry_run: DryRun, cohort: Path, tmp_path: Path
) -> None:
    plan = dry_run("joint-student", f"COHORT={cohort}", f"RUNS={tmp_path}")
    assert [part.split()[0] for part in plan.split("--method ")[1:]] == ["joint-mae", "joint-student"]
    assert f"--config {tmp_path}/demo/seed0-fold0/joint-student/config.yaml" in plan, "predictions of a killed run"


def test_an_ensemble_averages_members_of_the_same_labelled_draw(dry_run: DryRun, cohort: Path, tmp_path: Path) -> None:
    plan = dry_run("arms", f"COHORT={cohort}", f"RUNS={tmp_path}", "SEED=3", "ARMS=student-ensemble")
    run = f"{tmp_path}/demo/seed3-fold0"
    members = " ".join(f"{run}/student-mae{member}" for member in ("", "@1", "@2", "@3", "@4"))
    assert f"poddistill ensemble {members} --out {run}/student-ensemble" in plan
    (line,) = (line for line in plan.split("poddistill fit ") if "--method student-mae@2 " in line)
    assert "arms/student-mae.yaml --seed_everything 23 --data.init_args.mri.init_args.seed 3" in line
    assert "--data.init_args.tvus.init_args.seed 3" in line


def test_covariates_alone_are_fitted_on_the_draw_of_the_students_and_train_nothing(
    dry_run: DryRun, cohort: Path, tmp_path: Path
) -> None:
    arms = ("arms", f"COHORT={cohort}", f"RUNS={tmp_path}", "ARMS=covariates covariates--own")
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


def test_a_control_for_unlabelled_volumes_is_for_arms_that_have_some(dry_run: DryRun, tmp_path: Path) -> None:
    command = ["make", "--dry-run", "arms", f"RUNS={tmp_path}"]
    result = subprocess.run(
        [*command, "ARMS=student-paper--compute"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "student-paper--compute would pass more volumes than its arm" in result.stderr
    assert f"--run {tmp_path}/demo/seed0-fold0/student--compute " in dry_run(
        "arms", "ARMS=student--compute", f"RUNS={tmp_path}"
    )


def test_clean_leaves_every_training_on_a_users_cohort(dry_run: DryRun, tmp_path: Path) -> None:
    plan = dry_run("clean", "PROFILE=paper", "COHORT=cohorts/hospital", f"RUNS={tmp_path}")
    assert f"{tmp_path}/demo" in plan
    assert f"{tmp_path}/paper" not in plan
    assert "cohorts/hospital" not in plan
    runs = {name: tmp_path / "runs" / name for name in ("demo/seed0-fold0", "demo/seed1-fold0", "study/seed0-fold0")}
    for folder, cohort in zip(runs.values(), ("cohorts/demo", "cohorts/hospital", "cohorts/study"), strict=True):
        (folder / "mae").mkdir(parents=True)
        (folder / "mae/config.yaml").write_text(f"cohort: {cohort}\n")
    for name, key in (
        ("demo", "simulated patients need no secret\n"),
        ("hospital", "secret"),
        ("study", "secret, too"),
    ):
        (tmp_path / "cohorts" / name).mkdir(parents=True)
        (tmp_path / "cohorts" / f"{name}.key").write_text(key)
    shutil.copytree(ROOT / "experiments/pod", tmp_path / "experiments/pod")
    command = ["make", "--no-print-directory", "-f", str(ROOT / "Makefile"), "clean"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "runs/demo/seed1-fold0 stays: it holds runs of cohorts/hospital" in told
    assert "runs/study/seed0-fold0 stays: it holds runs of cohorts/study" in told
    assert [name for name, folder in runs.items() if folder.exists()] == ["demo/seed1-fold0", "study/seed0-fold0"]
    assert "cohorts/study stays: its key is not that of simulated patients" in told
    kept = {path.name for path in (tmp_path / "cohorts").iterdir()}
    assert kept == {"hospital", "hospital.key", "study", "study.key"}


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


@pytest.mark.parametrize(
    ("goal", "wrong", "told"),
    [
        ("pipeline", "COVARIATE=age,pain", "COVARIATE is no variable of this Makefile; it has PYTHON PROFILE COHORT"),
        ("pipeline", "PROFIL=paper", "PROFIL is no variable of this Makefile"),
        ("pipeline", "PROFILE=papre", "PROFILE=papre: there is no experiments/pod/papre.yaml; give demo, study, paper"),
        ("study", "SEEDS=five", "SEEDS=five: give a whole number"),
        ("pipeline", "FOLD=-1", "FOLD=-1: give a whole number"),
        ("pipeline", "COHORT=my cohort", "COHORT=my cohort: make cannot handle a path with blanks"),
    ],
)
def test_variables_that_would_be_misread_are_told(goal: str, wrong: str, told: str) -> None:
    done = subprocess.run(["make", "--dry-run", goal, wrong], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_column_that_is_not_there_is_told_before_anything_is_trained(cohort: Path, tmp_path: Path) -> None:
    for modality in ("mri", "tvus"):
        (cohort / f"{modality}.csv").write_text("case_id,patient_id,path,label,fold,age,pain\n")
    (cohort / "tvus.csv").write_text("case_id,patient_id,path,label,fold,age\n")
    command = ["make", "--dry-run", "pipeline", f"COHORT={cohort}", f"RUNS={tmp_path}/runs"]
    done = subprocess.run([*command, "COVARIATES=age, pain"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"{cohort}/tvus.csv has no column pain: name columns of both manifests" in done.stderr
    subprocess.run([*command, "COVARIATES=age"], cwd=ROOT, capture_output=True, check=True)


def test_options_reach_a_job_as_they_are(dry_run: DryRun, cohort: Path, tmp_path: Path) -> None:
    options = """--profile.covariates "[age, pain]" --method 'x y'"""
    plan = dry_run("slurm", "STAGE=student", f"COHORT={cohort}", f"RUNS={tmp_path}", f"ARGS={options}")
    assert shlex.split(plan)[-1] == f"ARGS={options}"


def test_an_arm_is_named_after_its_stage(cohort: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "experiments/pod", tmp_path / "experiments/pod")
    (tmp_path / "experiments/pod/arms/mine.yaml").touch()
    command = ["make", "--dry-run", "-f", str(ROOT / "Makefile"), "mine", f"COHORT={cohort}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "mine: the name of an arm begins with its stage, such as student-mine; rename its file" in done.stderr


def test_an_arm_can_be_asked_for_by_its_name_alone(dry_run: DryRun, cohort: Path, tmp_path: Path) -> None:
    options = (f"COHORT={cohort}", f"RUNS={tmp_path}/runs")
    assert "--method student-kl--shuffled " in dry_run("student-kl--shuffled", *options)
    command = ["make", "--dry-run", "student", "PROFILE=paper", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "student needs columns of both manifests: COVARIATES=age,pain" in done.stderr


def test_a_finished_checkpoint_outlives_an_interrupted_test(cohort: Path, tmp_path: Path) -> None:
    options = (f"COHORT={cohort}", f"RUNS={tmp_path}/runs")
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


def test_the_recipe_with_covariates_is_trained_where_there_are_some(
    dry_run: DryRun, cohort: Path, tmp_path: Path
) -> None:
    options = ("pipeline", "PROFILE=paper", f"COHORT={cohort}", f"RUNS={tmp_path}/runs")
    assert "--method student " not in dry_run(*options)
    (line,) = (
        line
        for line in dry_run(*options, "COVARIATES=age, pain").split("poddistill fit ")
        if "--method student " in line
    )
    assert '--profile.covariates "[age, pain]"' in line
    assert "--profile.covariates" not in dry_run("student", f"RUNS={tmp_path}/runs"), "the profile names its own"


def test_both_says_how_many_patients_students_know_to_have_both_examinations(
    dry_run: DryRun, cohort: Path, tmp_path: Path
) -> None:
    chosen = ("PROFILE=study", "LABELS=20", "BOTH=10", "REGIME=pairs", "ARMS=student-anchors")
    plan = " ".join(dry_run("arms", f"COHORT={cohort}", f"RUNS={tmp_path}", *chosen).replace("\\\n", "").split())
    fits = {line.split("--method ")[1].split()[0]: line for line in plan.split("poddistill fit ")[1:]}
    assert f"--run {tmp_path}/study-pairs-20labels-10both/seed0-fold0/student-anchors " in fits["student-anchors"]
    assert "--profile.n_both 10 " in fits["student-anchors"]
    for stage in ("mae", "teacher"):
        assert f"--run {tmp_path}/study-pairs/seed0-fold0/{stage} " in fits[stage], "one for any number"
        assert "n_both" not in fits[stage]
