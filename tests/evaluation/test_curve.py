"""Learning curves: where the baseline is as good as a method, against exact cases and simulated studies."""

import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from data_modules.errors import InputError
from poddistill.evaluation.compare import compare
from poddistill.evaluation.curve import as_good_at, as_words, draw_curve, print_curve
from poddistill.evaluation.curve_figure import curve_figure
from poddistill.evaluation.folds import Estimate


def estimates(*limits: tuple[float, float]) -> list[Estimate]:
    """Estimates in the middle of these intervals."""
    return [Estimate((low + high) / 2, low, high) for low, high in limits]


def test_the_value_is_read_between_two_on_the_logarithmic_scale():
    where, low, high = as_good_at([10, 40, 160], estimates((-0.3, -0.1), (-0.15, 0.05), (0.0, 0.2)))
    assert where == pytest.approx(40 * 4 ** (1 / 3))
    # the upper limit passes 0 two thirds of the way from 10 to 40, the lower one reaches it at 160
    assert low == pytest.approx(10 * 4 ** (2 / 3))
    assert high == math.inf


def test_the_scale_is_linear_for_parts():
    where, low, high = as_good_at([0.0, 0.1, 0.2], estimates((0.1, 0.3), (-0.1, 0.1), (-0.3, -0.1)))
    assert (where, low, high) == pytest.approx((0.1, 0.05, 0.15))


RISING, FALLING, EITHER = (Estimate(value, value - 0.05, value + 0.05) for value in (0.1, -0.1, 0.01))


@pytest.mark.parametrize(
    ("limits", "rise", "expected"),
    [
        ([(0.1, 0.2), (0.2, 0.3)], RISING, (-math.inf,) * 3),
        ([(-0.3, -0.2), (-0.2, -0.1)], RISING, (math.inf,) * 3),
        ([(0.2, 0.3), (0.1, 0.2)], FALLING, (math.inf,) * 3),
        ([(-0.2, -0.1), (-0.3, -0.2)], FALLING, (-math.inf,) * 3),
    ],
)
def test_beyond_what_was_tried_nothing_is_extrapolated(limits, rise, expected):
    assert as_good_at([20, 80], estimates(*limits), rise) == expected


@pytest.mark.parametrize("rise", [EITHER, None])
def test_a_baseline_that_may_be_flat_lies_on_neither_side(rise):
    for limits in ([(-0.25, -0.15), (-0.251, -0.15)], [(-0.251, -0.15), (-0.25, -0.15)]):
        where, low, high = as_good_at([20, 80], estimates(*limits), rise)
        assert math.isnan(where)
        assert (low, high) == (-math.inf, math.inf)


def test_an_interval_that_reaches_the_ends_is_open():
    where, low, high = as_good_at([20, 80], estimates((-0.2, 0.1), (-0.1, 0.4)), EITHER)
    assert 20 < where < 80
    assert (low, high) == (-math.inf, math.inf)


def test_a_dip_by_chance_does_not_make_two_answers():
    where, low, high = as_good_at([10, 20, 40, 80], estimates((-0.2, -0.1), (0.01, 0.05), (-0.05, -0.01), (0.1, 0.2)))
    assert 10 < low < where < high < 80


def test_the_value_lies_within_its_interval():
    """Made monotone, differences may have no 0 where the single ones leave one open."""
    limits = estimates((-0.4, -0.2), (-0.2, -0.08), (-0.13, -0.05), (-0.1, 0.01), (-0.06, -0.004))
    where, low, high = as_good_at([20, 40, 80, 160, 320], limits, RISING)
    assert where == high == math.inf
    assert 80 < low < 160


def test_what_cannot_be_told_is_nan():
    assert all(map(math.isnan, as_good_at([20, 80], [Estimate(math.nan, math.nan, math.nan), *estimates((0.1, 0.2))])))
    unknown = as_good_at([20, 80], [Estimate(-0.1, math.nan, math.nan), Estimate(0.1, 0.0, 0.2)])
    assert unknown[0] == pytest.approx(40)
    assert all(map(math.isnan, unknown[1:]))


@pytest.mark.parametrize(
    ("cohorts", "slope", "truth"), [(5, 0.1, 80.0), (10, 0.1, 110.0), (5, 0.02, 1000.0), (5, 0.0, math.inf)]
)
def test_the_interval_covers_the_true_value(cohorts, slope, truth):
    """At a number that was tried in 95 %, else in more; also where the baseline hardly rises, or not at all."""
    rng = np.random.default_rng(cohorts)
    values = np.array([20.0, 80.0, 320.0])
    expected = slope * np.log(values / truth) if slope else np.full(3, -0.2)
    covered = 0
    for _ in range(600):
        baseline = expected[:, None] + 0.05 * rng.normal(size=(3, cohorts)) + 0.05 * rng.normal(size=cohorts)
        differences, rise = [t_interval(row) for row in baseline], t_interval(baseline[-1] - baseline[0])
        _, low, high = as_good_at(list(values), differences, rise)
        covered += low <= truth <= high
    if truth in values:
        assert 0.93 * 600 <= covered <= 0.97 * 600
    else:
        assert covered >= 0.93 * 600


def t_interval(values: np.ndarray) -> Estimate:
    interval = stats.ttest_1samp(values, 0).confidence_interval()
    return Estimate(float(values.mean()), interval.low, interval.high)


@pytest.fixture
def points(tmp_path: Path, write_run) -> dict[float, list[Path]]:
    """Three cohorts at three values: the baseline rises from 0.5 to 2.5, the student stays at 1.6."""
    found: dict[float, list[Path]] = {}
    for value, separation in ((20, 0.5), (80, 1.5), (320, 2.5)):
        for cohort in range(3):
            write_run("student-mae", seed=cohort, separation=separation, replicate=cohort)
            write_run("student", seed=cohort, separation=1.6, replicate=cohort)
        found[value] = [(tmp_path / "runs").rename(tmp_path / f"runs{value}")]
    return found


def test_every_value_is_scored_as_compare_does(points, tmp_path):
    curve = draw_curve(points, tmp_path / "out", baseline="student-mae", resamples=20)
    for value, folders in points.items():
        compared = compare(folders, tmp_path / "compared", baseline="student-mae", resamples=20)
        mine = curve.table[curve.table["value"] == value].reset_index(drop=True)
        pd.testing.assert_frame_equal(mine[compared.table.columns], compared.table)
        (difference,) = compared.differences.to_dict("records")
        row = mine.set_index("method").loc["student"]
        assert row["difference"] == pytest.approx(difference["difference"])
        assert row["difference_low"] == pytest.approx(difference["low"])
        assert row["difference_p"] == pytest.approx(difference["p"])
    assert curve.picture.read_bytes().startswith(b"\x89PNG")
    assert set(pd.read_csv(tmp_path / "out" / "curve.csv")["value"]) == {20, 80, 320}


def test_it_says_how_many_labels_a_method_is_worth(points, tmp_path):
    curve = draw_curve(points, tmp_path / "out", baseline="student-mae", resamples=20)
    assert list(curve.as_good["method"].unique()) == ["student"]
    assert list(curve.as_good["cohorts"]) == [3, 3, 3]
    assert all(60 < value < 130 for value in curve.as_good["baseline_value"])
    written = pd.read_csv(tmp_path / "out" / "as_good.csv")
    pd.testing.assert_frame_equal(written, curve.as_good, rtol=1e-5)
    shown = _shown(curve, tmp_path)
    assert "as good as student-mae at" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert len(shown.splitlines()) == 1 + 6 + 1 + 1 + 3


def test_where_it_is_as_good_rests_on_cohorts_that_all_values_share(points, tmp_path):
    """A cohort that one value alone has would weigh in at that value and nowhere else."""
    alone = draw_curve(points, tmp_path / "out", baseline="student-mae", resamples=20)
    shutil.copytree(points[20][0] / "cohort0", points[20][0] / "cohort7")
    for file in points[20][0].glob("cohort7/*/*/predictions.csv"):
        file.write_text(file.read_text().replace("mri0-", "mri7-"))
    more = draw_curve(points, tmp_path / "more", baseline="student-mae", resamples=20)
    assert list(more.table.query("value == 20")["difference_cohorts"].dropna()) == [4]
    pd.testing.assert_frame_equal(more.as_good, alone.as_good)


def test_a_cohort_that_cannot_be_paired_is_told_once(points, tmp_path):
    for file in points[80][0].glob("cohort1/*/student-mae/predictions.csv"):
        table = pd.read_csv(file)
        first = table.index[table["split"] == "test"][0]
        table.loc[first, "label"] = 1 - table.loc[first, "label"]
        table.to_csv(file, index=False)
    curve = draw_curve(points, tmp_path / "out", baseline="student-mae", resamples=20)
    assert list(curve.as_good["cohorts"]) == [2, 2, 2]
    told = [note for note in curve.notes if "are not compared in cohort 1: their test cases or labels differ" in note]
    assert len(told) == 1


def test_runs_of_other_cohorts_have_no_difference(points, tmp_path):
    """Values studied on different patients still give a curve, but nothing is paired along it."""
    for cohort in range(3):
        (points[320][0] / f"cohort{cohort}").rename(points[320][0] / f"cohort{cohort + 7}")
    curve = draw_curve({20: points[20], 320: points[320]}, tmp_path / "out", baseline="student-mae", resamples=20)
    assert len(curve.table) == 4
    assert curve.as_good.empty
    assert "note: student-mae shares no runs" in _shown(curve, tmp_path)


def _shown(curve, tmp_path) -> str:
    console = Console(record=True, width=80, file=(tmp_path / "shown").open("w"))
    print_curve(curve, console)
    return console.export_text()


def test_the_picture_has_a_line_a_method_and_the_differences_beside_it(points, tmp_path):
    table = draw_curve(points, tmp_path / "out", baseline="student-mae", resamples=20).table
    alone, with_differences = curve_figure(table, "volumes"), curve_figure(table, "volumes", "student-mae")
    assert len(alone.axes) == 1
    assert [len(panel.containers) for panel in with_differences.axes] == [2, 1]
    panel = with_differences.axes[0]
    assert panel.get_xscale() == "log"
    assert [label.get_text() for label in panel.get_xticklabels()] == ["20", "80", "320"]
    parts = curve_figure(table.assign(value=table["value"] / 1000 - 0.02), "part of wrong labels")
    assert parts.axes[0].get_xscale() == "linear"


def test_what_is_no_curve_is_told(points, tmp_path):
    with pytest.raises(InputError, match=r"runs at two values or more; give each as VALUE=RUN"):
        draw_curve({20: points[20]}, tmp_path / "out")
    with pytest.raises(
        InputError, match=r"--baseline student-kd: no such method with predictions; choose one of student,"
    ):
        draw_curve(points, tmp_path / "out", baseline="student-kd", resamples=20)
    with pytest.raises(InputError, match=r"a value of the curve is not a finite number"):
        draw_curve({math.nan: points[20], 80: points[80]}, tmp_path / "out")
    with pytest.raises(InputError, match=r"runs20/cohort0/seed0-fold0/student is given at 20 and at 80: give it once"):
        draw_curve({20: points[20], 80: points[20]}, tmp_path / "out", resamples=20)
    with pytest.raises(InputError, match=r"nowhere: no such folder"):
        draw_curve({20: points[20], 80: [tmp_path / "nowhere"]}, tmp_path / "out", resamples=20)
    for file in points[80][0].rglob("student/predictions.csv"):
        file.unlink()
    only = {20: list(points[20][0].rglob("student")), 80: points[80]}
    with pytest.raises(InputError, match=r"no method has runs at two values, of student, stud"):
        draw_curve(only, tmp_path / "out", resamples=20)
    for file in points[80][0].rglob("predictions.csv"):
        file.unlink()
    with pytest.raises(InputError, match=r"runs80: runs without predictions\.csv only"):
        draw_curve(points, tmp_path / "out", resamples=20)


def test_beyond_is_beyond_what_the_baseline_was_tried_with(points, tmp_path):
    for folder in points[20][0].rglob("student-mae"):
        (folder / "predictions.csv").unlink()
    curve = draw_curve(points, tmp_path / "out", baseline="student-mae", resamples=20)
    assert set(curve.as_good["lowest"]) == {80}
    row = {**curve.as_good.iloc[0], "baseline_low": -math.inf, "baseline_high": math.inf, "baseline_value": math.nan}
    assert as_words(row) == ("-", "below 80 to above 320")
    assert as_words({**row, "baseline_value": math.inf, "baseline_low": math.inf}) == ("above 320", "above 320")
    assert as_words({**row, "baseline_value": 1214.2, "baseline_low": 84.26})[0] == "1214"
