"""Searches an arm's options on development cohorts, and records every trial.

    make mae teacher PROFILE=study RUNS=runs/replicates REPLICATE=11   (and 12: what the arm builds on)
    .venv/bin/python benchmarks/search.py student-mae --cohorts 11 12 --trials 20

Ranges stand in `experiments/pod/search/<arm>.yaml`. A trial trains the arm on each cohort; its score is the mean AUROC
over the cohorts' validation and test folds together, for these cohorts are for choosing alone, and no study may be run
on them. Trials are drawn by Optuna's tree-structured Parzen estimator. They are kept in `runs/search.db` and written
to `experiments/pod/search/<name>.csv`; the same command goes on with more trials. What is chosen goes into the
profile or the arm by hand, before fresh cohorts are looked at.
"""

import argparse
import os
import shutil
import statistics
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pandas as pd
import yaml
from sklearn.metrics import roc_auc_score
from timing import require

ROOT = Path(__file__).resolve().parents[1]
POD = ROOT / "experiments" / "pod"
SEARCH = POD / "search"


def main() -> None:
    """Runs the trials, and writes all that there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", help="a configuration in experiments/pod/arms with ranges in experiments/pod/search")
    parser.add_argument("--cohorts", type=int, nargs="+", required=True, help="replicates whose stages are finished")
    parser.add_argument("--trials", type=int, default=20, help="how many there are to be in all (default: 20)")
    parser.add_argument("--profile", default="study")
    parser.add_argument("--options", default="", help="further options of poddistill fit, the same in all trials")
    parser.add_argument(
        "--name", help="of what is written, where the options make it another search (default: the arm)"
    )
    arguments = parser.parse_args()
    optuna = require("optuna")
    ranges = yaml.safe_load((SEARCH / f"{arguments.arm}.yaml").read_text())
    name = arguments.name or arguments.arm
    study = optuna.create_study(
        study_name=f"{arguments.profile} {name}",
        storage=f"sqlite:///{ROOT / 'runs' / 'search.db'}",
        direction="maximize",
        load_if_exists=True,
    )
    # Else what is added later would draw the first trials again.
    study.sampler = optuna.samplers.TPESampler(seed=len(ranges) + len(study.trials), multivariate=True)

    def objective(trial: "optuna.Trial") -> float:
        chosen = {option: trial.suggest_float(option, **limits) for option, limits in ranges.items()}
        words = [*arguments.options.split(), *(str(word) for pair in chosen.items() for word in pair)]
        train = partial(trained, arguments.arm, arguments.profile, words)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            scores = dict(zip(arguments.cohorts, pool.map(train, arguments.cohorts), strict=True))
        trial.set_user_attr("aurocs", scores)
        return statistics.mean(scores.values())

    finished = [trial for trial in study.trials if trial.state.is_finished()]
    study.optimize(objective, n_trials=max(arguments.trials - len(finished), 0))
    columns = {"number": "trial", "value": "auroc", "user_attrs_aurocs": "aurocs"}
    table = study.trials_dataframe(attrs=("number", "value", "params", "user_attrs")).rename(columns=columns)
    table.columns = table.columns.str.removeprefix("params_")
    file = SEARCH / f"{name}.csv"
    table.to_csv(file, index=False, float_format="%.5g")
    print(f"{file}: {len(table)} trials; best {study.best_value:.4f} with {study.best_params}")


def trained(arm: str, profile: str, options: list[str], cohort: int) -> float:
    """Trains an arm with options beside what it builds on in a cohort's runs; returns its AUROC on held-out volumes."""
    (mae,) = (ROOT / "runs" / "replicates" / profile / f"cohort{cohort}").glob("seed*-fold0/mae")
    run, seed = mae.with_name(f"search-{arm}"), mae.parent.name.removeprefix("seed").partition("-")[0]
    shutil.rmtree(run, ignore_errors=True)
    files = [POD / f"{name}.yaml" for name in (profile, "student", f"arms/{arm}")]
    configs = [word for file in files for word in ("--config", file)]
    data = (
        "--cohort",
        ROOT / "cohorts" / f"{profile}-replicates" / str(cohort),
        "--fold",
        0,
        "--seed_everything",
        seed,
    )
    command = [ROOT / ".venv" / "bin" / "poddistill", "fit", *configs, "--run", run, "--method", arm, *data, *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(list(map(str, command)), cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    cases = pd.read_csv(run / "predictions.csv")
    shutil.rmtree(run)
    return float(roc_auc_score(cases["label"], cases["probability"]))


if __name__ == "__main__":
    main()
