"""What a gain is put down to."""

import numpy as np
import pandas as pd
import pytest

from poddistill.evaluation.attribution import attributions, controlled
from poddistill.evaluation.compare import compare


def names(table: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys([*table["method_a"], *table["method_b"]]))


def rows(*pairs: tuple[str, str, float, float], p_equivalence: float = 1.0) -> pd.DataFrame:
    table = pd.DataFrame(pairs, columns=["method_a", "method_b", "difference", "p_holm"])
    return table.assign(p_equivalence=p_equivalence, margin=0.01)


@pytest.mark.parametrize(
    ("gain", "constant", "dealt", "words"),
    [
        (
            (0.03, 0.01),
            (0.03, 0.01),
            (0.04, 0.02),
            "gains over mae and over its 2 controls: it comes from what these take away",
        ),
        (
            (0.03, 0.01),
            (0.01, 0.40),
            (0.04, 0.02),
            "mae and over its controls dealt, but is not shown to be better than its controls: constant. The gain",
        ),
        (
            (0.03, 0.01),
            (-0.03, 0.01),
            (0.00, np.nan),
            "gains over mae, but is not shown to be better than its controls: constant, dealt.",
        ),
        ((0.03, 0.20), (0.03, 0.01), (0.04, 0.02), "sorted is not shown to gain over mae."),
        ((-0.03, 0.20), (0.03, 0.01), (0.04, 0.02), "sorted is not shown to gain over mae."),
        ((-0.03, 0.01), (0.03, 0.01), (0.04, 0.02), "sorted is worse than mae."),
    ],
)
def test_a_gain_comes_from_what_is_taken_away_only_if_every_control_is_beaten(gain, constant, dealt, words):
    table = rows(
        ("sorted", "mae", *gain), ("sorted", "sorted--constant", *constant), ("sorted", "sorted--dealt", *dealt)
    )
    (sentence,) = attributions(table, "mae", names(table))
    assert words in sentence


def test_as_good_is_said_only_of_equivalence():
    table = rows(("sorted", "mae", 0.001, 0.5), ("sorted", "sorted--dealt", 0.02, 0.02), p_equivalence=0.01)
    assert attributions(table, "mae", names(table)) == ["sorted is as good as mae, within 0.01."]


def test_one_more_training_of_a_control_is_no_control():
    table = rows(("sorted", "mae", 0.03, 0.01), ("sorted", "sorted--dealt", 0.03, 0.01))
    (sentence,) = attributions(table, "mae", [*names(table), "sorted--dealt@1"])
    assert sentence.endswith("over its 1 control: it comes from what these take away.")


def test_a_further_pair_is_no_control():
    table = rows(
        ("sorted", "mae", 0.03, 0.01), ("sorted", "covariates", -0.01, 0.5), ("sorted", "sorted--dealt", 0.02, 0.02)
    )
    assert attributions(table, "mae", names(table)) == [
        "sorted gains over mae and over its 1 control: it comes from what these take away."
    ]


def test_methods_without_controls_get_no_sentence():
    assert attributions(rows(("long", "mae", 0.1, 0.001)), "mae", ["mae", "long"]) == []


def test_a_control_that_could_not_be_compared_is_not_beaten():
    table = rows(("sorted", "mae", 0.03, 0.01), ("sorted", "sorted--dealt", 0.04, 0.02))
    (sentence,) = attributions(table, "mae", ["mae", "sorted", "sorted--dealt", "sorted--constant"])
    assert "mae and over its controls dealt, but is not shown to be better than its controls: constant." in sentence


def test_a_method_that_shares_no_cases_with_the_baseline_is_said_not_to_be_compared():
    table = rows(("sorted", "sorted--dealt", 0.04, 0.02))
    methods = ["mae", "sorted", "sorted--dealt"]
    assert attributions(table, "mae", methods) == ["sorted could not be compared with mae."]


def test_only_a_methods_own_controls_are_its_controls():
    methods = ["student", "student--own", "student--dealt", "other"]
    table = rows(
        ("student", "student--own", 0.03, 0.01),
        ("student", "student--dealt", 0.03, 0.01),
        ("other", "student--own", 0.03, 0.01),
        ("other", "student", 0.03, 0.01),
    )
    assert attributions(table, "student", methods) == []
    assert attributions(table, "student--own", methods) == [
        "student gains over student--own and over its 1 control: it comes from what these take away."
    ]


def test_a_control_needs_its_method():
    assert controlled("student--constant", ["student", "student--constant"]) == "student"
    assert controlled("student--constant", ["student--constant"]) is None
    assert controlled("student-kd", ["student", "student-kd"]) is None


def test_controls_are_compared_with_their_method_and_the_report_says_so(write_run, tmp_path):
    strengths = {"mae": 1.0, "student": 3.0, "student--constant": 1.0, "other": 1.0}
    for method, separation in strengths.items():
        for replicate in range(4):
            write_run(method, replicate=replicate, separation=separation)
    result = compare([tmp_path / "runs"], tmp_path / "out", baseline="mae", resamples=50)
    pairs = set(zip(result.differences["method_a"], result.differences["method_b"], strict=True))
    assert pairs == {("student", "mae"), ("student", "student--constant"), ("other", "mae")}
    assert "student gains over mae and over its 1 control: it comes from what these take away." in result.notes
    assert "it comes from what these take away" in (tmp_path / "out/index.html").read_text()
