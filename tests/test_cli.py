import subprocess
import sys
from pathlib import Path

import pytest

from poddistill.cli import main

VERBS = (
    "simulate",
    "ingest",
    "inspect",
    "fit",
    "validate",
    "test",
    "predict",
    "compare",
    "curve",
    "ensemble",
    "adjust",
    "logistic",
)


def test_help_lists_every_verb_without_importing_anything_heavy() -> None:
    code = (
        "import sys; from poddistill.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'monai', 'pytorch_lightning', 'wandb', 'pandas', 'numpy', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert all(f"\n    {verb} " in result.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert f"example:\n  poddistill {verb} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: VERB; poddistill --help"),
        (["transmogrify"], "invalid choice: 'transmogrify'"),
        (["compare"], "the following arguments are required: RUN, --out; poddistill compare --help"),
        (["ingest", "ct", "x", "--out", "y"], "argument modality: invalid choice: 'ct'"),
        (
            ["compare", "x", "--out", "y", "--margni=3"],
            "--margni: not an option of poddistill compare, did you mean --margin?",
        ),
        (
            ["compare", "x", "--out", "y", "--seed", "3"],
            "--seed: not an option of poddistill compare; poddistill compare -",
        ),
    ],
)
def test_wrong_usage_is_told_in_one_line_and_exits_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and message in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["compare", "{folder}/nowhere", "--out", "{folder}/out"], 1, "nowhere"),
        (["inspect", "{folder}/nowhere"], 1, "nowhere"),
        (["ingest", "mri", "{folder}/nowhere", "--out", "{folder}/cohort"], 1, "nowhere"),
        (["ingest", "tvus", "{folder}", "--out", "{folder}/cohort", "--spacing", "1", "1", "1"], 2, "--spacing"),
        (["simulate", "--out", "{folder}/new", "--prevalence", "2"], 1, "prevalence"),
        (["simulate", "--out", "{folder}/new", "--workers", "-1"], 1, "workers"),
        (["fit", "--config", "{folder}/nowhere.yaml"], 2, "nowhere.yaml"),
        (["adjust", "{folder}", "--prevalence", "0.25", "--out", "{folder}/out"], 1, "predictions_all.csv"),
        (
            ["logistic", "--cohort", "{folder}", "--covariates", "age", "--out", "{folder}/out"],
            1,
            "mri.csv: no such file",
        ),
        (["curve", "20={folder}", "80", "--out", "{folder}/out"], 2, "80: give the number and the folder as VALUE=RUN"),
        (["curve", "few={folder}", "--out", "{folder}/out"], 2, "few="),
        (["curve", "20={folder}", "--out", "{folder}/out"], 1, "two values or more"),
        (["curve", "20={folder}", "80={folder}/nowhere", "--out", "{folder}/out"], 1, "predictions.csv"),
        (["adjust", "{folder}", "--prevalence", "25", "--out", "{folder}/out"], 1, "prevalence is 25"),
    ],
)
def test_bad_input_is_one_line_and_a_status(
    arguments: list[str], status: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([part.format(folder=tmp_path) for part in arguments]) == status
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_simulate_writes_what_ingest_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hospital, cohort = tmp_path / "hospital", tmp_path / "cohort"
    sizes = ["--n_labelled", "10", "--n_unlabelled", "2", "--n_clips", "10", "--workers", "1", "--prevalence", "0.5"]
    assert main(["simulate", "--out", str(hospital), *sizes]) == 0
    for modality in ("mri", "tvus"):
        arguments = ["ingest", modality, str(hospital / modality), "--out", str(cohort), "--workers", "1"]
        assert main([*arguments, "--folds", "3"]) == 0, capsys.readouterr().err
    assert main(["inspect", str(cohort)]) == 0
    assert len((cohort / "mri.csv").read_text().splitlines()) == 13
    assert len((cohort / "tvus.csv").read_text().splitlines()) == 11
    assert (cohort / "rejected.csv").read_text().count("\n") == 1
