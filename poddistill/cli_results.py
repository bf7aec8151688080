"""The verbs of ``poddistill`` that need no training: they compare runs, or make a run of other runs or of a table."""

import argparse
from collections.abc import Callable
from pathlib import Path

from data_modules.errors import UsageError

SIMULATED_NOTICE = (
    "The cohort is simulated: these figures compare methods on simulated patients and say nothing about real ones."
)

AddVerb = Callable[..., argparse.ArgumentParser]
"""Takes a verb's name, what it does, an example and the function that runs it."""


def add_result_verbs(add_verb: AddVerb) -> None:
    """Adds compare, curve, ensemble, adjust and logistic to the command."""
    _add_compare(add_verb)
    _add_curve(add_verb)
    _add_ensemble(add_verb)
    _add_adjust(add_verb)
    _add_logistic(add_verb)


def _add_compare(add_verb: AddVerb) -> None:
    parser = add_verb(
        "compare",
        "compare runs: comparison.csv, differences.csv, runs.csv, index.html and the table",
        "poddistill compare runs/demo/seed0-fold0 --out runs/demo/seed0-fold0/report",
        _compare,
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders, or folders above them")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--baseline", metavar="METHOD", help="the method to subtract from every other (default: all pairs)"
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=0.01,
        metavar="AUROC",
        help="difference that matters, for equivalence and the numbers needed (default: 0.01)",
    )
    parser.add_argument(
        "--pair",
        nargs=2,
        action="append",
        default=[],
        metavar=("METHOD", "METHOD"),
        help="one more pair beside those with the baseline, the second subtracted from the first; may be repeated",
    )
    parser.add_argument("--simulated", action="store_true", help="say on the report that the cohort is simulated")


def _compare(arguments: argparse.Namespace) -> None:
    from poddistill.evaluation.compare import compare, print_table

    comparison = compare(
        arguments.runs,
        arguments.out,
        baseline=arguments.baseline,
        margin=arguments.margin,
        further=[(a, b) for a, b in arguments.pair],
        notice=SIMULATED_NOTICE if arguments.simulated else None,
    )
    print_table(comparison)
    print(f"report: {arguments.out / 'index.html'}")


def _add_curve(add_verb: AddVerb) -> None:
    parser = add_verb(
        "curve",
        "draw AUROC against a number that runs differ in: curve.csv, as_good.csv, curve.png and the tables",
        "poddistill curve 20=runs/few 80=runs/some 320=runs/many --baseline student-mae --out runs/curve",
        _curve,
    )
    parser.add_argument(
        "points",
        nargs="+",
        metavar="VALUE=RUN",
        help="the number, and run folders made with it or a folder above them; a number may have several",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--baseline",
        metavar="METHOD",
        help="the method to subtract from every other; says at which number it is as good as they are",
    )
    parser.add_argument(
        "--axis", default="labelled volumes", metavar="TEXT", help="what the number is (default: labelled volumes)"
    )


def _curve(arguments: argparse.Namespace) -> None:
    from poddistill.evaluation.curve import draw_curve, print_curve

    points: dict[float, list[Path]] = {}
    for point in arguments.points:
        value, _, run = point.partition("=")
        try:
            points.setdefault(float(value), []).append(Path(run))
        except ValueError:
            run = ""
        if not run:
            raise UsageError(f"{point}: give the number and the folder as VALUE=RUN, such as 20=runs/twenty")
    curve = draw_curve(points, arguments.out, axis=arguments.axis, baseline=arguments.baseline)
    print_curve(curve)
    print(f"picture: {curve.picture}")


def _add_ensemble(add_verb: AddVerb) -> None:
    parser = add_verb(
        "ensemble",
        "average the predictions of several trainings into a run of its own",
        "poddistill ensemble runs/demo/seed0-fold0/student runs/demo/seed0-fold0/student@1 "
        "--out runs/demo/seed0-fold0/student-ensemble",
        _ensemble,
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders with predictions.csv")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN")


def _ensemble(arguments: argparse.Namespace) -> None:
    from poddistill.evaluation.ensemble import ensemble

    print(f"ensemble: wrote {ensemble(arguments.runs, arguments.out)}")


def _add_adjust(add_verb: AddVerb) -> None:
    parser = add_verb(
        "adjust",
        "adjust the probabilities of a run to a known prevalence, as a run of its own",
        "poddistill adjust runs/demo/seed0-fold0/student-mae --prevalence 0.25 "
        "--out runs/demo/seed0-fold0/student-prevalence",
        _adjust,
    )
    parser.add_argument("source", type=Path, metavar="RUN", help="run folder with predictions_all.csv (verb predict)")
    parser.add_argument("--prevalence", type=float, required=True, metavar="PART", help="of obliteration, in (0, 1)")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN")


def _adjust(arguments: argparse.Namespace) -> None:
    from poddistill.evaluation.prevalence import map_to_prevalence

    file, area, cases = map_to_prevalence(arguments.source, arguments.prevalence, arguments.out)
    print(f"adjust: wrote {file}, from an AUROC of {area:.3f} of {cases} validation cases")
    if area <= 0.5:
        print(f"adjust: at 0.5 or less the scores tell no case from another: each has {arguments.prevalence:g}")


def _add_logistic(add_verb: AddVerb) -> None:
    parser = add_verb(
        "logistic",
        "predict from covariates alone, without any image, as a run of its own",
        "poddistill logistic --cohort cohorts/demo --covariates age parity pain ca125 "
        "--out runs/demo/seed0-fold0/covariates",
        _logistic,
    )
    add = parser.add_argument
    add("--cohort", type=Path, required=True, metavar="DIR", help="cohort folder")
    add("--covariates", nargs="+", required=True, metavar="NAME", help="columns of both manifests, such as age pain")
    add("--out", type=Path, required=True, metavar="RUN")
    add(
        "--fit_on",
        choices=("tvus-labels", "mri-labels"),
        default="tvus-labels",
        help="the labels of the training clips or those of the training volumes (default: tvus-labels)",
    )
    add("--fold", type=int, default=0, metavar="N", help="test fold (default: 0)")
    add("--seed", type=int, default=0, metavar="N", help="of the labelled draw (default: 0)")
    add("--n_labelled", type=int, metavar="N", help="labelled volumes to train on (default: all)")
    add("--n_labelled_clips", type=int, metavar="N", help="labelled clips to fit on (default: all)")
    add("--n_unlabelled", type=int, metavar="N", help="volumes without a label to scale covariates by (default: all)")
    add(
        "--label_noise",
        type=float,
        default=0.0,
        metavar="PART",
        help="part of the labelled volumes' labels that is wrong (default: 0)",
    )


def _logistic(arguments: argparse.Namespace) -> None:
    from poddistill.pod.covariate_model import predict_from_covariates

    options = {name: value for name, value in vars(arguments).items() if name != "run"}
    print(f"logistic: wrote {predict_from_covariates(**options)}")
