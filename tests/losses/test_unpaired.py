"""What the two cohorts bring."""

import pytest
import torch

from data_modules.errors import InputError
from poddistill.losses.unpaired import TeacherBank, no_covariates

NAN = float("nan")


@pytest.mark.parametrize(
    ("logits", "labels", "ids", "words"),
    [
        ([], [], (), "empty"),
        ([1.0, 2.0], [1.0], ("a", "b"), r"2 case_ids but logits \(2,\), labels \(1,\), features \(2, 1\), covariates"),
        ([1.0, float("inf")], [1.0, 0.0], ("a", "b"), "output on b is not finite"),
    ],
)
def test_a_bad_bank_is_refused(logits, labels, ids, words):
    outputs = torch.tensor(logits)
    with pytest.raises(InputError, match=words):
        n = len(ids)
        patients, recorded = torch.arange(n), torch.zeros(n, dtype=torch.bool)
        TeacherBank(outputs, torch.tensor(labels), ids, outputs[:, None], no_covariates(n), patients, recorded)


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_features_that_are_not_finite_are_refused(value, make_bank):
    features = torch.zeros(3, 4)
    features[1, 2] = value
    with pytest.raises(InputError, match=r"^the teacher's output on clip1 is not finite: train the teacher again$"):
        make_bank([1.0, 0.0, 1.0], features=features)


def test_labelled_clips_are_found_by_their_label(make_bank):
    clips = make_bank([1.0, NAN, 0.0, 1.0])
    assert clips.labelled(1).tolist() == [0, 3]
    assert clips.labelled(0).tolist() == [2]


def test_a_part_of_a_batch_keeps_what_belongs_together(make_student):
    student = make_student([1.0, NAN, 0.0], logits=[5.0, 6.0, 7.0])
    part = student.rows(~student.labels.isnan())
    assert len(part) == 2
    assert part.logits.tolist() == [5.0, 7.0]
    assert part.features.tolist() == [[5.0], [7.0]]
    assert part.index.tolist() == [0, 2]
