"""Probabilities by rank, prevalence and AUROC."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from data_modules.errors import InputError
from poddistill.cli import main
from poddistill.evaluation.prevalence import map_to_prevalence

PREVALENCE, DISTANCE = 0.25, 1.2


def normal(count, mean=0.0):
    """The quantiles of N(mean, 1): a sample without chance."""
    return mean + norm.ppf((np.arange(count) + 0.5) / count)


def posterior(x):
    one, zero = PREVALENCE * norm.pdf(x - DISTANCE), (1 - PREVALENCE) * norm.pdf(x)
    return one / (one + zero)


@pytest.fixture
def write(tmp_path):
    """Writes a run whose scores are a rising function of binormal ones, and returns it and the binormal ones."""

    def write(distorted=lambda x: expit(4 * x - 1), change=lambda table: table, free=300, obliterated=100):
        reference = np.concatenate([normal(3000), normal(1000, DISTANCE)])
        training = np.linspace(3, 5, 40)
        held_out = np.concatenate([normal(free), normal(obliterated, DISTANCE)])
        labels = np.repeat([0.0, 1.0], [free, obliterated])
        parts = {"unlabelled": reference, "train": training, "val": held_out, "test": held_out}
        split = np.repeat(list(parts), [len(part) for part in parts.values()])
        x = np.concatenate(list(parts.values()))
        label = np.concatenate([np.full(4000, np.nan), np.tile([0.0, 1.0], 20), labels, labels])
        case_id = [f"case-{row:05d}" for row in range(len(x))]
        table = pd.DataFrame(
            {"case_id": case_id, "patient_id": case_id, "split": split, "label": label, "probability": distorted(x)}
        )
        table = change(table.astype({"label": "Int64"}))
        folder = tmp_path / "student-mae"
        folder.mkdir(exist_ok=True)
        table.to_csv(folder / "predictions_all.csv", index=False)
        return folder, pd.Series(x, index=case_id)

    return write


def mapped(run, prevalence=PREVALENCE):
    out = run.parent / "student-prevalence"
    return pd.read_csv(map_to_prevalence(run, prevalence, out).predictions).set_index("case_id")


def test_binormal_scores_give_back_their_posterior_whatever_scale_they_were_on(write):
    for distorted in (lambda x: expit(4 * x - 1), lambda x: 0.5 + 0.05 * np.tanh(x)):
        run, x = write(distorted)
        table = mapped(run)
        inner = table[x.loc[table.index].between(*norm.ppf([0.005, 0.995]))]
        np.testing.assert_allclose(inner["probability"], posterior(x.loc[inner.index]), atol=0.01)


def test_the_mean_over_patients_like_the_unlabelled_is_the_prevalence_whatever_the_scores(write):
    rng = np.random.default_rng(0)

    def skewed(table):
        skew = rng.beta(0.3, 2, len(table)) + 0.2 * table["label"].eq(1).fillna(False).to_numpy(dtype=float)
        skew[table["split"].eq("test")] = rng.choice(skew[table["split"].eq("unlabelled")], 400, replace=False)
        return table.assign(probability=skew / skew.max())

    run, _ = write(change=skewed)
    for prevalence in (0.05, 0.4):
        assert mapped(run, prevalence).query("split == 'test'")["probability"].mean() == pytest.approx(
            prevalence, abs=0.02
        )


def test_the_order_stays_beyond_the_reference_and_between_its_scores(write):
    scores = np.concatenate([[0.0, 1e-6, 0.0999, 0.9001, 0.999, 1.0], np.linspace(0.1, 0.9, 394)])

    def coarse(table):
        """Few distinct scores are unlabelled, from 0.1 to 0.9; the tested ones lie between and beyond."""
        few = np.round(np.clip(table["probability"], 0.1, 0.9), 1)
        few[table["split"].eq("test")] = scores
        return table.assign(probability=few)

    run, _ = write(change=coarse)
    table = mapped(run).query("split == 'test'")
    before = pd.read_csv(run / "predictions_all.csv").set_index("case_id")["probability"][table.index]
    assert table["probability"].between(0, 1, inclusive="neither").all()
    order = np.argsort(before.to_numpy())
    steps = np.diff(table["probability"].to_numpy()[order])
    assert (steps[np.diff(before.to_numpy()[order]) > 0] > 0).all()
    assert roc_auc_score(table["label"], table["probability"]) == roc_auc_score(table["label"], before)


def test_a_case_is_mapped_as_if_no_other_were_tested(write):
    together = mapped(write()[0])
    alone = "case-04700"
    run, _ = write(change=lambda table: table[table["split"].ne("test") | table["case_id"].eq(alone)])
    by_itself = mapped(run)
    assert by_itself["split"].value_counts().to_dict() == {"val": 400, "test": 1}
    pd.testing.assert_frame_equal(by_itself, together.loc[by_itself.index])


def test_it_writes_the_labelled_held_out_cases_with_the_columns_of_a_run(write):
    def hide(table):
        return table.assign(label=table["label"].mask(table["case_id"].eq("case-04700")))

    run, _ = write(change=hide)
    file, area, cases = map_to_prevalence(run, PREVALENCE, run.parent / "out")
    assert file == run.parent / "out/predictions.csv"
    assert [path.name for path in file.parent.iterdir()] == ["predictions.csv"]
    assert cases == 400
    validation = pd.read_csv(run / "predictions_all.csv").query("split == 'val'")
    assert area == pytest.approx(roc_auc_score(validation["label"], validation["probability"]))
    everything = pd.read_csv(run / "predictions_all.csv", dtype=str, keep_default_na=False)
    expected = everything[everything["split"].isin(["val", "test"]) & everything["label"].ne("")]
    written = pd.read_csv(file, dtype=str)
    assert list(written) == list(everything)
    about = ["case_id", "patient_id", "split", "label"]
    pd.testing.assert_frame_equal(written[about], expected[about].reset_index(drop=True))


def test_a_score_without_information_gives_the_prevalence_and_a_perfect_one_the_labels(write):
    run, _ = write(change=lambda table: table.assign(probability=1 - table["probability"]))
    np.testing.assert_allclose(mapped(run)["probability"], PREVALENCE)
    run, _ = write(change=lambda table: table.assign(probability=table["label"].fillna(0).astype(float)))
    table = mapped(run)
    np.testing.assert_allclose(table["probability"], table["label"], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "prevalence", "message"),
    [
        (lambda table: table, 1.0, "prevalence is 1.0: give a part between 0 and 1"),
        (lambda table: table, float("nan"), "prevalence is nan: give a part between 0 and 1"),
        (lambda table: table[table["split"].ne("unlabelled")], 0.25, "no case is unlabelled.*ingest some or lower"),
        (
            lambda table: table[table["split"].ne("val") | table["label"].eq(0)],
            0.25,
            "of 300 labelled validation cases 0 are obliterated.*choose another fold",
        ),
        (
            lambda table: table.assign(split=table["split"].replace("unlabelled", "none")),
            0.25,
            "'none' must be train, unlabelled, unused, val or test",
        ),
    ],
)
def test_bad_input_is_one_line_with_a_remedy(write, change, prevalence, message):
    run, _ = write(change=change)
    with pytest.raises(InputError, match=message) as error:
        map_to_prevalence(run, prevalence, run.parent / "out")
    assert "\n" not in str(error.value)
    assert not (run.parent / "out").exists()


def test_missing_predictions_are_told_with_the_verb_that_writes_them(tmp_path):
    with pytest.raises(InputError, match=r"predictions_all\.csv: no such file; write it with poddistill predict"):
        map_to_prevalence(tmp_path, 0.25, tmp_path / "out")


def test_the_command_tells_the_auroc_and_where_it_says_nothing(write, capsys):
    run, _ = write()
    out = run.parent / "out"
    words = ["adjust", str(run), "--prevalence", "0.25", "--out", str(out)]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert re.fullmatch(
        rf"adjust: wrote {out}/predictions\.csv, from an AUROC of 0\.80\d of 400 validation cases\n", told
    )
    write(change=lambda table: table.assign(probability=1 - table["probability"]))
    assert main(words) == 0
    assert capsys.readouterr().out.endswith(
        "\nadjust: at 0.5 or less the scores tell no case from another: each has 0.25\n"
    )
