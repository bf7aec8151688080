import base64
import math
import re

import pytest

from poddistill.evaluation.compare import compare
from poddistill.evaluation.differences import paired_differences
from poddistill.evaluation.figures import method_colours, reliability_figure, roc_figure
from poddistill.evaluation.report import p_value, verdict


@pytest.fixture
def page(tmp_path, write_run, write_mae) -> str:
    write_mae()
    write_run("teacher", cohort="tvus")
    write_run("student", separation=3.0)
    write_run("student-mae", separation=2.9)
    write_run("student-scratch", separation=0.0)
    (tmp_path / "runs" / "seed0-fold0" / "teacher" / "figures" / "clip <b>.png").write_bytes(b"not looked into")
    return compare([tmp_path / "runs"], tmp_path / "out", notice="Simulated & small.", resamples=200).page.read_text()


def test_the_page_needs_nothing_but_itself(page):
    assert not re.findall(r"https?://|//\w+\.|<script|<link|@import|url\(", page)
    assert set(re.findall(r'src="([^",]{0,22})', page)) == {"data:image/png;base64"}


def test_every_figure_is_embedded(page, tmp_path):
    embedded = [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]+)"', page)]
    figures = tmp_path / "runs" / "seed0-fold0"
    files = [
        tmp_path / "out" / "roc.png",
        tmp_path / "out" / "learning_curves.png",
        figures / "mae" / "figures" / "reconstruction.png",
        figures / "teacher" / "figures" / "clip <b>.png",
    ]
    for file in files:
        assert file.read_bytes() in embedded
    assert len(embedded) == len(files) + 1  # the reliability diagram
    assert "reconstruction <span" in page
    assert "clip &lt;b&gt;" in page


def test_the_page_opens_with_what_was_compared(page):
    assert page.index("Simulated &amp; small.") < page.index("<h1>")
    assert "Seeds a method: 1. Test folds: 1. Test patients: 30." in page
    assert "One seed a method" in page


def test_the_page_says_in_words_what_each_difference_supports(page):
    rows = dict(re.findall(r"</span>(student[^<]*) − [^<]*scratch</td>.*?<td class=\"words\">([^<]*)</td>", page, re.S))
    assert rows["student"].startswith("A difference: student ranks better than student-scratch")
    words = re.findall(r'<td class="words">([^<]*)</td>', page)
    assert len(words) == 3
    assert "Undecided: neither a difference nor equivalence is shown." in words


def test_a_page_without_pairs_or_histories_says_so(write_run, tmp_path):
    stage = write_run("student")
    (stage / "metrics.csv").unlink()
    page = compare([stage], tmp_path / "out", resamples=50).page.read_text()
    assert "no paired difference" in page
    assert "Learning curves" not in page
    assert 'class="notice"' not in page
    assert not (tmp_path / "out" / "learning_curves.png").exists()


def test_the_page_shows_adjusted_p_values_and_the_numbers_needed(page):
    assert "adjusted for the number of differences here (3)" in page
    assert page.count("seeds: -<") == 3  # one seed tells nothing of others
    assert re.search(r"patients: [\d,]+<", page)
    assert "true difference of 0.01 with 80 % power" in page


def test_a_dozen_arms_stay_readable(write_run, tmp_path):
    """The pairs drawn are those of the student, or all from the baseline; panels go into rows of six."""
    names = ["student", *(f"arm-{letter}" for letter in "abcdefghijkl")]
    for name in names:
        (write_run(name) / "metrics.csv").unlink()
    result = compare([tmp_path / "runs"], tmp_path / "all", resamples=20)
    colours = method_colours(names)
    assert len(set(colours.values())) > 10
    drawn = roc_figure(result.methods, result.table, result.differences, colours).axes[1]
    assert len(drawn.get_yticks()) == 12
    assert all(label.get_text().startswith("student\n") for label in drawn.get_yticklabels())
    from_one, _ = paired_differences(result.methods, baseline="arm-a")
    drawn = roc_figure(result.methods, result.table, from_one, colours).axes[1]
    assert len(drawn.get_yticks()) == 12
    assert reliability_figure(result.methods, colours).get_size_inches()[0] < 14


def test_the_calibration_figure_counts_each_case_once(write_run, tmp_path):
    """Two seeds of the same 30 cases are 30 cases."""
    write_run("student", seed=0)
    write_run("student", seed=1)
    result = compare([tmp_path / "runs"], tmp_path / "out", resamples=20)
    beneath = reliability_figure(result.methods, method_colours(["student"])).axes[1]
    assert sum(bar.get_height() for bar in beneath.patches) == pytest.approx(30)


@pytest.mark.parametrize(
    ("difference", "low", "high", "shows", "words"),
    [
        (0.1, 0.02, 0.18, "a difference", "A difference: a ranks better than b."),
        (-0.1, -0.18, -0.02, "a difference", "A difference: b ranks better than a."),
        (0.006, 0.004, 0.008, "a difference within 0.01", "A difference: a ranks better than b by less than 0.01."),
        (0.001, -0.002, 0.004, "equivalence within 0.01", "Equivalence: they differ by less than 0.01"),
        (0.1, -0.01, 0.2, "undecided", "Undecided: neither a difference nor equivalence"),
        (0.1, 0.01, 0.2, "undecided", "excludes 0, but not after adjustment"),
        (0.0, 0.0, 0.0, "no difference", "No difference: both rank these patients alike"),
        (0.5, math.nan, math.nan, "", "too few"),
        (math.nan, math.nan, math.nan, "", "a class is missing"),
    ],
)
def test_verdicts(difference, low, high, shows, words):
    row = {"method_a": "a", "method_b": "b", "difference": difference, "low": low, "high": high}
    row |= {"shows": shows, "margin": 0.01}
    assert words in verdict(row)


def test_p_values_as_text():
    assert [p_value(p) for p in (0.0001, 0.0312, 0.5, math.nan)] == ["<0.001", "0.031", "0.50", "-"]


def test_a_method_keeps_its_colour_whatever_it_is_compared_with():
    assert method_colours(["student"])["student"] == method_colours(["mine", "teacher", "student"])["student"]
    many = method_colours(["teacher", "student", "student-mae", "student-kd", "student-scratch", "mae", "x", "y", "z"])
    assert len(set(many.values())) == len(many)
