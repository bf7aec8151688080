"""Test AUROC against a number that studies differ in, such as how many labelled volumes the students had.

A method at one number is compared with the baseline at every number, which says how many labels it replaces. With

    d_i = AUROC(baseline at x_i) - AUROC(method at x)

paired over the runs that the two share at every number, and its 95 % interval [low_i, high_i], the method at x is as
good as the baseline at the number where d is 0: d is made monotone over the numbers (isotonic regression) and read in
between along straight lines, over the logarithm of the number where `logarithmic` says so. The interval is the set of
numbers where "as good" is not rejected, low <= 0 <= high, with low and high read along straight lines likewise: a test
turned into an interval, as Fieller did for ratios. Between two numbers it is no narrower than that of the line between
them, for the standard deviation of a weighted mean is at most the weighted mean of the standard deviations.

A number that lies below all that were tried is -inf, one above all is inf: nothing is extrapolated. Which of the two it
is where the baseline is worse, or better, everywhere, is said only if the baseline itself is shown to rise or to fall
from the first number to the last, by the 95 % interval of that difference; else the interval is open on both sides.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape
from sklearn.isotonic import IsotonicRegression

from data_modules.errors import InputError
from poddistill.evaluation.compare import method_row, plain_console, plain_table
from poddistill.evaluation.curve_figure import curve_figure, logarithmic
from poddistill.evaluation.differences import Pairs, paired_difference, shared_runs
from poddistill.evaluation.folds import Estimate
from poddistill.evaluation.runs import find_runs
from poddistill.evaluation.scores import Key, Method, score_methods
from poddistill.evaluation.statistics import FloatArray

DIFFERENCE = ["difference", "difference_low", "difference_high", "difference_p", "difference_cohorts"]
ROUNDING = 1e-12  # AUROC: what reading along a line may leave of a 0
AS_GOOD_COLUMNS = ["method", "value", "baseline", "baseline_value", "baseline_low", "baseline_high"]
AS_GOOD_COLUMNS += ["lowest", "highest", "cohorts"]


@dataclass(frozen=True)
class Curve:
    """What `draw_curve` found.

    Attributes:
        table: a row a value and method: column value, those of ``comparison.csv``, and the paired difference from the
            baseline at the same value with its 95 % interval and unadjusted p-value, nan where there is none.
        as_good: a row a value and method other than the baseline, columns `AS_GOOD_COLUMNS`: the value at which the
            baseline is as good and its 95 % interval, the lowest and highest value that the baseline shares runs at,
            and how many cohorts all differences rest on.
        picture: the written ``curve.png``.
        notes: sentences on what the reader must know, such as a missing threshold.
    """

    table: pd.DataFrame
    as_good: pd.DataFrame
    picture: Path
    notes: list[str]


def draw_curve(
    points: Mapping[float, Sequence[Path | str]],
    out: Path | str,
    *,
    axis: str = "labelled volumes",
    baseline: str | None = None,
    resamples: int = 2000,
) -> Curve:
    """Score runs by the value that they were made with; write ``curve.csv``, ``as_good.csv`` and ``curve.png``.

    Args:
        points: value -> stage folders, or folders above them; at least two values.
        out: folder to write to; made if missing.
        axis: what the values are, for the picture.
        baseline: the method that others are compared with, at the same value and at every other. Runs are paired where
            they have the same cohort, seed and fold and were tested on the same cases; where the baseline is as good
            is told by the runs that can be paired so at every value.
        resamples: of the bootstrap, for the intervals of metrics other than AUROC.

    Raises:
        InputError: fewer than two values, a value that is not finite, a folder without runs, a faulty file, or a
            baseline that no run has.
    """
    if not all(map(math.isfinite, points)):
        raise InputError("a value of the curve is not a finite number; give each as VALUE=RUN, such as 20=runs/twenty")
    if len(points) < 2:
        raise InputError("a curve needs runs at two values or more; give each as VALUE=RUN, such as 20=runs/twenty")
    scored: dict[float, dict[str, Method]] = {}
    notes: list[str] = []
    taken: dict[Path, float] = {}
    for value in sorted(points):
        runs = find_runs(points[value])
        for run in runs:
            if run.folder in taken:
                raise InputError(f"{run.folder} is given at {taken[run.folder]:g} and at {value:g}: give it once")
            taken[run.folder] = value
        methods, said = score_methods(runs, resamples, 0)
        notes += [f"at {value:g}: {note}" for note in said]
        if not methods:
            folders = ", ".join(map(str, points[value]))
            raise InputError(f"{folders}: runs without predictions.csv only; predict first, then draw the curve")
        scored[value] = {method.name: method for method in methods}
    names = list(dict.fromkeys(name for methods in scored.values() for name in methods))
    if baseline is not None and baseline not in names:
        raise InputError(f"--baseline {baseline}: no such method with predictions; choose one of {', '.join(names)}")
    if all(sum(name in methods for methods in scored.values()) < 2 for name in names):
        raise InputError(f"no method has runs at two values, of {', '.join(names)}: add some")
    rows = []
    for value, at_value in scored.items():
        for method in at_value.values():
            difference, said = _from_baseline(method, at_value.get(baseline or ""))
            rows.append({"value": value, **method_row(method), **difference})
            notes += said
    table = pd.DataFrame(rows)
    along = {value: methods[baseline] for value, methods in scored.items() if baseline in methods}
    as_good_rows, said = _as_good_rows(scored, along)
    as_good = pd.DataFrame(as_good_rows, columns=AS_GOOD_COLUMNS)
    notes += said
    if baseline is not None and as_good.empty:
        notes.append(
            f"{baseline} shares no runs (cohort, seed, fold and test cases) with another method at two values, so it "
            "is not said where it is as good."
        )

    out = Path(out)
    picture = out / "curve.png"
    try:
        out.mkdir(parents=True, exist_ok=True)
        table.to_csv(out / "curve.csv", index=False, float_format="%.6g")
        as_good.to_csv(out / "as_good.csv", index=False, float_format="%.6g")
        curve_figure(table, axis, baseline).savefig(picture, metadata={"Software": None})
    except OSError as error:
        raise InputError(f"{out}: cannot write there ({error.strerror}); give another --out folder") from error
    return Curve(table, as_good, picture, list(dict.fromkeys(notes)))


def print_curve(curve: Curve, console: Console | None = None) -> None:
    """Print the AUROC by method and value and, below it, where the baseline is as good, as plain ASCII.

    Args:
        curve: from `draw_curve`.
        console: where to; standard output by default.
    """
    console = console or plain_console()
    every = plain_table(["method", "at", "cohorts", "AUROC (95 %)", "difference (95 %)"])
    for row in curve.table.sort_values("value").sort_values("method", kind="stable").to_dict("records"):
        auroc = f"{_text(row['auroc'])} ({_text(row['auroc_low'])}-{_text(row['auroc_high'])})"
        apart = (_text(row[name], "+") for name in DIFFERENCE[:3])
        difference = "-" if math.isnan(row["difference"]) else "{} ({} to {})".format(*apart)
        every.add_row(escape(row["method"]), f"{row['value']:g}", f"{row['cohorts']}", auroc, difference)
    console.print(every)
    if len(curve.as_good):
        same = f"as good as {curve.as_good['baseline'].iloc[0]} at"
        equal = plain_table(["method", "at", "cohorts", same, "95 % interval"])
        for row in curve.as_good.sort_values("method", kind="stable").to_dict("records"):
            equal.add_row(escape(row["method"]), f"{row['value']:g}", f"{row['cohorts']}", *as_words(row))
        console.print()
        console.print(equal)
    for note in curve.notes:
        console.print(f"note: {note}", markup=False)


def _text(value: float, sign: str = "") -> str:
    return "-" if math.isnan(value) else f"{value:{sign}.3f}"


def as_words(row: Mapping[Hashable, Any]) -> tuple[str, str]:
    """Return the value and the interval of a row of `Curve.as_good` as text, each number with three digits.

    What lies beyond all values that were compared is "below 20" or "above 320", and what is unknown a hyphen.
    """

    def words(value: float) -> str:
        if math.isinf(value):
            return f"below {row['lowest']:g}" if value < 0 else f"above {row['highest']:g}"
        return "-" if math.isnan(value) else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"

    where, *ends = (words(row[f"baseline_{name}"]) for name in ("value", "low", "high"))
    return where, " to ".join(dict.fromkeys(ends))


def _from_baseline(method: Method, baseline: Method | None) -> tuple[dict[str, float], list[str]]:
    """The columns `DIFFERENCE`, and sentences on cohorts that could not be paired."""
    unknown = dict.fromkeys(DIFFERENCE, math.nan)
    if baseline is None or baseline is method:
        return unknown, []
    shared, notes = shared_runs(method, baseline)
    if not shared:
        return unknown, notes
    estimate, cohorts = paired_difference(method, baseline, shared)
    found = (estimate.value, estimate.low, estimate.high, estimate.p, cohorts)
    return dict(zip(DIFFERENCE, found, strict=True)), notes


def _as_good_rows(
    scored: Mapping[float, Mapping[str, Method]], along: Mapping[float, Method]
) -> tuple[list[dict[str, object]], list[str]]:
    """The rows of `Curve.as_good`, without those whose runs the baseline shares at fewer than two values.

    Beside them, sentences on cohorts that could not be paired.
    """
    rows: list[dict[str, object]] = []
    notes: list[str] = []
    ends = list(along.values())
    whole = shared_runs(ends[-1], ends[0])[0] if len(ends) > 1 else {}
    rise = paired_difference(ends[-1], ends[0], whole)[0] if whole else None
    for value, methods in scored.items():
        for name, method in methods.items():
            found = {x: shared_runs(method, other) for x, other in along.items() if other.name != name}
            notes += [note for pairs, said in found.values() if pairs for note in said]
            shared = _shared_by_all({x: pairs for x, (pairs, _) in found.items() if pairs})
            if len(shared) < 2:
                continue
            estimates = [paired_difference(along[x], method, pairs)[0] for x, pairs in shared.items()]
            cohorts = len({cohort for cohort, _ in next(iter(shared.values()))})
            where = as_good_at(list(shared), estimates, rise)
            row = (name, value, ends[0].name, *where, min(shared), max(shared), cohorts)
            rows.append(dict(zip(AS_GOOD_COLUMNS, row, strict=True)))
    return rows, notes


def _shared_by_all(found: Mapping[float, Pairs]) -> dict[float, Pairs]:
    """The pairs of runs whose cohort, fold and seed are there at every value, turned around; empty without any."""

    def seeds(pairs: Pairs) -> set[tuple[Key, int]]:
        return {(key, run.seed) for key, members in pairs.items() for run, _ in members}

    common = set.intersection(*map(seeds, found.values())) if found else set()
    kept: dict[float, Pairs] = {x: {} for x in found if common}
    for x, pairs in kept.items():
        for key, members in found[x].items():
            if left := [(b, a) for a, b in members if (key, a.seed) in common]:
                pairs[key] = left
    return kept


def as_good_at(
    values: Sequence[float], differences: Sequence[Estimate], rise: Estimate | None = None
) -> tuple[float, float, float]:
    """Return the value at which the baseline is as good as a method, and its 95 % interval.

    Args:
        values: of the baseline, increasing, at least two.
        differences: the baseline at each of them minus the method.
        rise: the baseline at the last of them minus itself at the first; None if that is not known.

    Returns:
        The value and the ends of its interval, each within the values, or -inf below and inf above them. The value is
        nan where it lies beyond all values and nobody knows on which side, all are where a difference is undefined, and
        the ends where an interval is.
    """
    position = np.log(values) if logarithmic(values) else np.asarray(values, dtype=float)
    means = np.array([estimate.value for estimate in differences])
    limits = np.array([(estimate.low, estimate.high) for estimate in differences])
    if np.isnan(means).any():
        return math.nan, math.nan, math.nan
    rises = bool(np.polyfit(position, means, 1)[0] > 0)
    fitted = IsotonicRegression(increasing=rises).fit_transform(position, means)
    zeros = _zeros(position, fitted)
    where = float(zeros.mean()) if len(zeros) else _beyond(fitted, rise)
    unknown = bool(np.isnan(limits).any())
    low, high = (math.nan, math.nan) if unknown else _ends(position, limits[:, 0], limits[:, 1], rise)
    if not (unknown or math.isnan(where)):  # made monotone, it may lie beside what the single values leave open
        low, high = min(low, where), max(high, where)
    back = math.exp if logarithmic(values) else float
    where, low, high = (end if math.isinf(end) else back(end) for end in (where, low, high))
    return where, low, high


def _zeros(position: FloatArray, line: FloatArray) -> FloatArray:
    """Where a line of straight pieces is 0: single places, and the ends of pieces that lie on 0."""
    before, after = line[:-1], line[1:]
    crossed = np.flatnonzero(before * after < 0)
    share = before[crossed] / (before[crossed] - after[crossed])
    inside = position[crossed] + share * np.diff(position)[crossed]
    return np.concatenate([position[line == 0], inside])


def _ends(position: FloatArray, low: FloatArray, high: FloatArray, rise: Estimate | None) -> tuple[float, float]:
    """The ends of the set in which 0 is not rejected, which is open where it reaches the first or the last value."""
    corners = np.unique(np.concatenate([position, _zeros(position, low), _zeros(position, high)]))
    below, above = (np.interp(corners, position, limit) for limit in (low, high))
    kept = corners[(below <= ROUNDING) & (above >= -ROUNDING)]
    if not len(kept):
        side = _beyond(low, rise)
        return (-math.inf, math.inf) if math.isnan(side) else (side, side)
    first, last = float(kept[0]), float(kept[-1])
    return (-math.inf if first == position[0] else first), (math.inf if last == position[-1] else last)


def _beyond(differences: FloatArray, rise: Estimate | None) -> float:
    """On which side of all values differences that have one sign are 0; nan unless the baseline rises or falls."""
    if rise is None or not (rise.low > 0 or rise.high < 0):
        return math.nan
    return -math.inf if (differences[0] > 0) == (rise.low > 0) else math.inf
