"""How often a study of methods that do not differ reports a gain.

    .venv/bin/python benchmarks/null_studies.py runs/replicates/study student-mae student-paper student-paper--constant

The named methods were all trained on every cohort. In each cohort their runs are dealt to their names at random, so
that a name stands for nothing and a teacher among them knows nothing. Then the study is analysed as `poddistill compare
--baseline` does, with the first name as the baseline. Dealing keeps what real trainings have: few cohorts, correlated
scores, bad runs. Whatever such a study reports is false; printed is the share of studies that report it.
"""

import argparse
from pathlib import Path

import numpy as np
from timing import table

from poddistill.evaluation.attribution import attributions
from poddistill.evaluation.decisions import ALPHA
from poddistill.evaluation.differences import paired_differences
from poddistill.evaluation.runs import find_runs
from poddistill.evaluation.scores import Method, score_methods

RESAMPLES = 10  # of the bootstrap, which takes no part in what a study reports


def main() -> None:
    """Deals the runs to the methods' names and prints what the studies report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="a study's runs")
    parser.add_argument("methods", nargs="+", help="the baseline, then arms and their controls")
    parser.add_argument("--studies", type=int, default=1000)
    arguments = parser.parse_args()
    runs = [run for run in find_runs([arguments.study]) if run.method in arguments.methods]
    if missing := set(arguments.methods) - {run.method for run in runs}:
        raise SystemExit(f"error: {arguments.study} has no runs of {', '.join(sorted(missing))}: name trained methods")
    scored, _ = score_methods(runs, resamples=RESAMPLES, bootstrap_seed=0)
    reported = np.zeros(4)
    rng = np.random.default_rng(0)
    for _ in range(arguments.studies):
        differences, _ = paired_differences(dealt(scored, rng), arguments.methods[0])
        gains = differences["difference"].gt(0) & differences["method_b"].eq(arguments.methods[0])
        said = attributions(differences, arguments.methods[0], arguments.methods)
        reported += [
            differences["p"].lt(ALPHA).mean(),
            differences["p_holm"].lt(ALPHA).any(),
            (gains & differences["p_holm"].lt(ALPHA)).any(),
            any("it comes from" in sentence for sentence in said),
        ]
    names = [
        "a single difference at 5 %, unadjusted",
        "any difference",
        "any gain over the baseline",
        "a gain over the baseline and over its controls",
    ]
    shares = reported / arguments.studies
    rows = [[name, f"{share:.1%}"] for name, share in zip(names, shares, strict=True)]
    print(table(["studies that report", "share"], rows))


def dealt(methods: list[Method], rng: np.random.Generator) -> list[Method]:
    """Returns the methods with the folds of each cohort dealt to their names at random."""
    keys = sorted(set.intersection(*(set(method.folds) for method in methods)))
    orders = {cohort: rng.permutation(len(methods)) for cohort, _ in keys}
    return [
        Method(method.name, {key: methods[orders[key[0]][k]].folds[key] for key in keys}, method.bootstrap_seed)
        for k, method in enumerate(methods)
    ]


if __name__ == "__main__":
    main()
