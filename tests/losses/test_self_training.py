"""Soft targets from the predictions of a finished student."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from data_modules.errors import InputError
from poddistill.losses.self_training import SelfTrainingTargets
from poddistill.losses.unpaired import StudentCohort

NAN = float("nan")
N = 10  # volumes: 0 and 1 are trained on with their labels, 2 to 7 are unlabelled, 8 and 9 are validation and test


@pytest.fixture
def cohort(make_cohort) -> StudentCohort:
    made = make_cohort([1.0, 0.0] + [NAN] * 8)
    made.unlabelled[8:] = False
    return made


@pytest.fixture
def predictions(tmp_path: Path) -> pd.DataFrame:
    """As `poddistill predict` writes them, in an order of its own; the last two are the highest."""
    table = pd.DataFrame(
        {
            "case_id": [f"case{i}" for i in range(N)],
            "patient_id": [f"patient{i}" for i in range(N)],
            "split": ["train"] * 2 + ["unlabelled"] * 6 + ["val", "test"],
            "label": [1, 0] + [None] * 6 + [1, 0],
            "probability": [0.9, 0.1, 0.62, 0.55, 0.61, 0.5, 0.58, 0.6, 0.99, 0.98],
        }
    )
    return table.sample(frac=1, random_state=0)


@pytest.fixture
def file(predictions: pd.DataFrame, tmp_path: Path) -> Path:
    path = tmp_path / "predictions_all.csv"
    predictions.to_csv(path, index=False)
    return path


def targets_of(transfer: SelfTrainingTargets, student) -> list[float]:
    """The target of every volume: where the loss of that volume alone has no gradient; nan without one."""
    found = []
    for row in range(len(student)):
        logit = torch.zeros(1, requires_grad=True)
        alone = type(student)(logit, logit[:, None], torch.tensor([NAN]), torch.zeros(1, 0), torch.tensor([row]))
        (gradient,) = torch.autograd.grad(transfer(alone, None), logit)
        found.append(0.5 - gradient.item() if gradient.item() else NAN)
    return found


def test_two_point_targets_are_the_highest_ranks_at_the_prevalence(file, cohort, make_student):
    transfer = SelfTrainingTargets(str(file), prevalence=1 / 3, centre=2.0)
    transfer.prepare(cohort, None)
    low, high = 1 / (1 + np.exp(2.0)), 1 / (1 + np.exp(-2.0))
    expected = [NAN, NAN, high, low, high, low, low, low, NAN, NAN]  # two of six, though others score higher
    assert targets_of(transfer, make_student([NAN] * N)) == pytest.approx(expected, nan_ok=True)


def test_the_prevalence_is_that_of_the_training_labels_by_default(file, cohort, make_student):
    transfer = SelfTrainingTargets(str(file))
    transfer.prepare(cohort, None)
    targets = np.array(targets_of(transfer, make_student([NAN] * N))[2:8])
    assert (targets > 0.5).tolist() == [True, False, True, False, False, True]  # of two labels one is 1


def test_the_teachers_quantiles_are_given_in_the_order_of_the_first_student(file, cohort, make_student, make_bank):
    transfer = SelfTrainingTargets(str(file), "teacher", prevalence=0.5)
    logits = [-3.0, -2.0, -1.0, 0.5, 1.5, 2.5, 99.0]
    transfer.prepare(cohort, make_bank([0.0, 0.0, 0.0, 1.0, 1.0, 1.0, NAN], logits))
    by_rank = torch.tensor(logits[:6]).sigmoid().tolist()  # six clips and six volumes: one each
    ranks = [5, 1, 4, 0, 2, 3]
    expected = [NAN, NAN, *(by_rank[rank] for rank in ranks), NAN, NAN]
    assert targets_of(transfer, make_student([NAN] * N)) == pytest.approx(expected, nan_ok=True, abs=1e-6)


def test_own_probabilities_stay_and_labelled_volumes_take_part_when_asked(file, cohort, make_student):
    transfer = SelfTrainingTargets(str(file), "own", labelled=True)
    transfer.prepare(cohort, None)
    expected = [0.9, 0.1, 0.62, 0.55, 0.61, NAN, 0.58, 0.6, NAN, NAN]  # at 0.5 there is no gradient, either
    assert targets_of(transfer, make_student([NAN] * N)) == pytest.approx(expected, nan_ok=True, abs=1e-6)


def test_the_loss_is_the_mean_over_unlabelled_volumes_and_reaches_the_student(file, cohort, make_student):
    transfer = SelfTrainingTargets(str(file), "own")
    transfer.prepare(cohort, None)
    logits = torch.tensor([5.0, -5.0, 0.3, -0.2], requires_grad=True)
    loss = transfer(make_student([1.0, 0.0, NAN, NAN], logits), None)
    p = logits.detach()[2:].sigmoid()
    g = torch.tensor([0.62, 0.55])
    assert loss.item() == pytest.approx(functional.binary_cross_entropy(p, g).item(), rel=1e-5)
    loss.backward()
    assert logits.grad.tolist() == pytest.approx([0.0, 0.0, *((p - g) / 2).tolist()])


def test_a_batch_of_labelled_volumes_alone_gives_zero(file, cohort, make_student):
    transfer = SelfTrainingTargets(str(file))
    transfer.prepare(cohort, None)
    logits = torch.zeros(2, requires_grad=True)
    loss = transfer(make_student([1.0, 0.0], logits), None)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.tolist() == [0.0, 0.0]


def test_equal_probabilities_have_equal_targets(predictions, cohort, make_student, make_bank, tmp_path):
    predictions.assign(probability=0.5).to_csv(tmp_path / "flat.csv", index=False)
    transfer = SelfTrainingTargets(str(tmp_path / "flat.csv"), "teacher", prevalence=0.5)
    transfer.prepare(cohort, make_bank([0.0, 1.0] * 3))
    assert len(set(targets_of(transfer, make_student([NAN] * N))[2:8])) == 1


def test_predictions_that_do_not_fit_are_told_by_file_and_case(predictions, cohort, tmp_path):
    def told(table: pd.DataFrame | None, words: str) -> None:
        path = tmp_path / "p.csv"
        path.unlink(missing_ok=True)
        if table is not None:
            table.to_csv(path, index=False)
        with pytest.raises(InputError, match=rf"^[^\n]*p\.csv: [^\n]*{words}[^\n]*$"):
            SelfTrainingTargets(str(path)).prepare(cohort, None)

    told(None, "no such file; write it with poddistill predict")
    told(predictions.drop(columns="probability"), "no column probability")
    told(predictions[predictions["case_id"] != "case4"], "no probability of case4")
    told(predictions.assign(probability=predictions["probability"].where(predictions["case_id"] != "case5")), "case5")
    told(predictions.assign(split=predictions["split"].replace("test", "train")), "trained on the label of case9")
    told(predictions.assign(split=predictions["split"].replace("unlabelled", "train")), "the label of case2")
    told(pd.DataFrame(), "not a table")


def test_cohorts_that_lack_something_are_told(file, cohort, make_cohort):
    with pytest.raises(InputError, match=r"set model\.teacher or quantiles to two-point$"):
        SelfTrainingTargets(str(file), "teacher").prepare(cohort, None)
    with pytest.raises(InputError, match="needs unlabelled volumes"):
        SelfTrainingTargets(str(file)).prepare(make_cohort([0.0, 1.0]), None)
    one_class = make_cohort([1.0, 1.0] + [NAN] * 8)
    with pytest.raises(InputError, match=r"set transfer\.prevalence$"):
        SelfTrainingTargets(str(file)).prepare(one_class, None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"quantiles": "three-point"}, "^quantiles is 'three-point': choose two-point, teacher or own$"),
        ({"prevalence": 1.0}, r"^prevalence is 1\.0: give a part between 0 and 1, or null$"),
        ({"centre": 0.0}, r"^centre is 0\.0: give a logit above 0$"),
    ],
)
def test_bad_options_are_told_in_one_line(options, words):
    with pytest.raises(InputError, match=words):
        SelfTrainingTargets("predictions_all.csv", **options)


@pytest.mark.parametrize(("quantiles", "reads"), [("teacher", True), ("two-point", False), ("own", False)])
def test_a_teacher_is_read_for_its_quantiles_alone(quantiles, reads):
    transfer = SelfTrainingTargets("predictions_all.csv", quantiles)
    assert (transfer.needs_teacher, transfer.reads_outputs) == (reads, reads)
