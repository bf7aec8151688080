"""The student's features and probabilities are to be distributed as the teacher's."""

import math

import pytest
import torch

from data_modules.errors import InputError
from poddistill.losses.alignment import DistributionAlignment
from poddistill.losses.controls import InventedOutputs
from poddistill.losses.discrepancy import mmd, moment_distance, sinkhorn

NAN = float("nan")


@pytest.fixture
def bank(make_bank):
    torch.manual_seed(0)
    labels = [0.0] * 300 + [1.0] * 100
    features = torch.randn(400, 3) + 2 * torch.tensor(labels)[:, None]
    return make_bank(labels, logits=3 * torch.tensor(labels) - 1 + torch.randn(400), features=features)


def prepared(bank, cohort, **options):
    """With a projection that changes nothing, so the student's features can be given in the teacher's space."""
    transfer = DistributionAlignment(3, 3, **options)
    torch.nn.init.eye_(transfer.space.projection.weight)
    torch.nn.init.zeros_(transfer.space.projection.bias)
    transfer.prepare(cohort, bank)
    return transfer


@pytest.mark.parametrize("kind", ["mmd", "coral", "sinkhorn"])
def test_features_are_compared_class_by_class_with_clips_of_the_class(kind, make_bank, make_student, make_cohort):
    """One feature vector a class, so what is drawn is known."""
    torch.manual_seed(0)
    bank = make_bank([0.0, 1.0, 1.0], features=torch.tensor([[0.0, 2, 1], [4.0, 0, 1], [4.0, 0, 1]]))
    transfer = prepared(bank, make_cohort([0.0, 1.0]), kind=kind, label_weight=0.0, draws=5, feature_weight=2.0)
    features = torch.randn(6, 3)
    student = make_student([0.0, 1.0, 0.0, NAN, 1.0, 1.0], features=features)
    parts = []
    for rows, clip in (([0, 2], 0), ([1, 4, 5], 1)):
        volumes, clips = features[rows], transfer.space.standardised(bank.features[[clip] * 5])
        if kind == "coral":
            parts.append(moment_distance(volumes, clips[0], torch.zeros(3, 3)))
        else:
            parts.append((mmd if kind == "mmd" else sinkhorn)(volumes, clips))
    assert transfer(student, bank).item() == pytest.approx((parts[0] + parts[1]).item(), rel=1e-4)


@pytest.mark.parametrize("kind", ["mmd", "coral"])
def test_volumes_distributed_as_clips_of_their_class_cost_least(kind, bank, make_student, make_cohort):
    torch.manual_seed(0)
    transfer = prepared(bank, make_cohort([0.0, 1.0]), kind=kind, label_weight=0.0)
    volumes = torch.cat([bank.labelled(0)[:60], bank.labelled(1)[:60]])
    features = transfer.space.standardised(bank.features[volumes])
    labels = bank.labels[volumes]
    alike = transfer(make_student(labels, features=features), bank).item()
    assert abs(alike) < 0.03
    shifts = [transfer(make_student(labels, features=features + shift), bank).item() for shift in (0.5, 1.0, 2.0)]
    assert alike + 0.02 < shifts[0] < shifts[1] < shifts[2]
    assert transfer(make_student(1 - labels, features=features), bank).item() > 10 * max(alike, 0.01)


def test_marginal_alignment_takes_unlabelled_volumes_and_clips_at_the_prevalence(bank, make_student, make_cohort):
    torch.manual_seed(0)
    options = {"conditional": False, "label_weight": 0.0, "draws": 200}
    volumes = torch.cat([bank.labelled(0)[:20], bank.labelled(1)[:80]])  # of another prevalence than the clips
    student = make_student(
        [NAN] * 100, features=prepared(bank, make_cohort([0.0, 1.0])).space.standardised(bank.features[volumes])
    )
    as_in_the_student = prepared(bank, make_cohort([0.0, 1.0]), prevalence=0.8, **options)(student, bank).item()
    as_in_the_bank = prepared(bank, make_cohort([0.0, 1.0]), prevalence=0.25, **options)(student, bank).item()
    assert abs(as_in_the_student) < 0.03
    assert as_in_the_bank > 0.1


def test_labels_cost_the_divergence_of_the_mean_probability_from_the_mixture(bank, make_student, make_cohort):
    cohort = make_cohort([0.0, 0.0, 0.0, 0.0, 1.0, NAN])
    transfer = prepared(bank, cohort, feature_weight=0.0, label_weight=3.0)
    means = [
        sum(1 / (1 + math.exp(-t)) for t in bank.logits[bank.labels == c].tolist()) / n for c, n in ((0, 300), (1, 100))
    ]
    q = 0.8 * means[0] + 0.2 * means[1]
    logits = [0.3, -1.0, 2.0]
    p = sum(1 / (1 + math.exp(-s)) for s in logits) / 3
    expected = 3 * (q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p)))
    student = make_student([NAN, 1.0, NAN, NAN], logits=[0.3, 9.0, -1.0, 2.0], features=torch.randn(4, 3))
    assert transfer(student, bank).item() == pytest.approx(expected, rel=1e-4)
    reversed_ = student.rows(torch.tensor([3, 2, 1, 0]))
    assert transfer(reversed_, bank).item() == pytest.approx(expected, rel=1e-4)
    at_the_mixture = make_student([NAN] * 2, logits=[math.log(q / (1 - q))] * 2, features=torch.randn(2, 3))
    assert transfer(at_the_mixture, bank).item() == pytest.approx(0, abs=1e-6)


def test_extreme_logits_keep_a_finite_loss_and_a_gradient(bank, make_student, make_cohort):
    transfer = prepared(bank, make_cohort([0.0, 1.0]), feature_weight=0.0)
    logits = torch.tensor([200.0, 300.0], requires_grad=True)
    loss = transfer(make_student([NAN, NAN], logits=logits, features=torch.randn(2, 3)), bank)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.sum() > 0.1


@pytest.mark.parametrize("kind", ["mmd", "coral", "sinkhorn"])
@pytest.mark.parametrize("conditional", [True, False])
def test_gradients_reach_the_student_and_the_projection(kind, conditional, bank, make_student, make_cohort):
    transfer = prepared(bank, make_cohort([0.0, 1.0]), kind=kind, conditional=conditional)
    features, logits = torch.randn(6, 3, requires_grad=True), torch.randn(6, requires_grad=True)
    transfer(make_student([0.0, 0.0, 1.0, 1.0, NAN, NAN], logits, features), bank).backward()
    assert (features.grad.abs().sum(1) > 0).tolist() == [True] * 4 + [not conditional] * 2
    assert (logits.grad != 0).tolist() == [False] * 4 + [True] * 2
    assert transfer.space.projection.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("labels", [[0.0], [0.0, 1.0]])
def test_too_few_volumes_to_compare_cost_nothing(labels, bank, make_student, make_cohort):
    transfer = prepared(bank, make_cohort([0.0, 1.0]))
    features = torch.randn(len(labels), 3, requires_grad=True)
    loss = transfer(make_student(labels, features=features), bank)
    loss.backward()
    assert loss.item() == 0
    assert features.grad.abs().sum() == 0


def test_a_batch_without_labels_costs_what_its_probabilities_do(bank, make_student, make_cohort):
    student = make_student([NAN] * 3, features=torch.randn(3, 3))
    both = prepared(bank, make_cohort([0.0, 1.0]))
    alone = prepared(bank, make_cohort([0.0, 1.0]), feature_weight=0.0)
    assert both(student, bank).item() == alone(student, bank).item() > 0


@pytest.mark.parametrize("kind", ["mmd", "coral", "sinkhorn"])
def test_a_control_whose_features_are_equal_within_a_class_has_a_finite_loss(kind, bank, make_student, make_cohort):
    control = InventedOutputs()(bank)
    transfer = prepared(control, make_cohort([0.0, 1.0]), kind=kind)
    features = torch.randn(4, 3, requires_grad=True)
    loss = transfer(make_student([0.0, 0.0, 1.0, 1.0], features=features), control)
    loss.backward()
    assert loss.isfinite()
    assert features.grad.isfinite().all()
    assert features.grad.abs().sum() > 0


def test_autocast_does_not_change_the_loss(bank, make_student, make_cohort):
    transfer = prepared(bank, make_cohort([0.0, 1.0]), kind="sinkhorn")
    student = make_student([0.0, 0.0, 1.0, NAN], features=torch.randn(4, 3))
    torch.manual_seed(0)
    expected = transfer(student, bank)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        assert transfer(student, bank).item() == expected.item()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "ot"}, "kind is 'ot': choose mmd, coral or sinkhorn"),
        ({"feature_weight": -1.0}, "feature_weight is -1.0: give at least 0"),
        ({"label_weight": NAN}, "label_weight is nan: give at least 0"),
        ({"draws": 1}, "draws is 1: give at least 2"),
        ({"prevalence": 1.0}, r"prevalence is 1.0: give a number in \(0, 1\), or null"),
    ],
)
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        DistributionAlignment(3, 3, **options)


@pytest.mark.parametrize(("label_weight", "needed"), [(0.0, False), (0.1, True)])
def test_a_weight_of_the_labels_needs_batches_with_unlabelled_volumes(label_weight, needed, bank, make_cohort):
    assert DistributionAlignment(3, 3, label_weight=label_weight).needs_unlabelled == needed
    assert prepared(bank, make_cohort([0.0, 1.0]), label_weight=label_weight).needs_unlabelled == needed


def test_without_labels_a_prevalence_must_be_given(bank, make_cohort):
    with pytest.raises(InputError, match="prevalence is null, but no MRI has a training label"):
        prepared(bank, make_cohort([NAN]))
    prepared(bank, make_cohort([NAN]), prevalence=0.3)
