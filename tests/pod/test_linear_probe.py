"""The head that a student starts from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from data_modules.errors import InputError
from poddistill.lightning_cli import build
from poddistill.nets.head import Head
from poddistill.pod.linear_probe import LinearProbe
from poddistill.pod.student_kd import StudentKD

POD = Path(__file__).parents[2] / "experiments" / "pod"


class Affine(nn.Module):
    """Eight voxels to three features of other scales, one of them always the same; dropout while it trains."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 3)
        with torch.no_grad():
            self.linear.weight[2] = 0
            self.linear.weight[1] *= 100

    def forward(self, volume):
        return nn.functional.dropout(self.linear(volume.flatten(1)), training=self.training) + 50


@pytest.fixture
def task():
    """An encoder, 120 volumes and their labels, which the features tell in part."""
    torch.manual_seed(0)
    encoder, volumes = Affine(), torch.randn(120, 1, 2, 2, 2)
    labels = (encoder.eval()(volumes)[:, 1] + 20 * torch.randn(120) > 60).float()
    return encoder.train(), volumes, labels


def test_the_head_is_the_logistic_regression_of_standardised_features(task):
    encoder, volumes, labels = task
    head = Head(3, 1)
    LinearProbe(penalty=5.0)(encoder, head, volumes.split(50), labels)
    assert encoder.training
    features = encoder.eval()(volumes).detach()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / 5, tol=1e-8)).fit(features, labels)
    expected = model.decision_function(features.numpy())
    np.testing.assert_allclose(head(features).detach().squeeze(1), expected, atol=0.02)
    assert expected.std() > 0.5


def test_soft_labels_count_as_so_many_cases_of_either_label(task):
    encoder, volumes, labels = task
    soft, twice = Head(3, 1), Head(3, 1)
    LinearProbe(penalty=2.0)(encoder, soft, [volumes], 0.75 * labels + 0.25 * (1 - labels))
    four = torch.cat([labels, labels, labels, 1 - labels])
    LinearProbe(penalty=8.0)(encoder, twice, [volumes] * 4, four)
    torch.testing.assert_close(soft.weight, twice.weight, rtol=0.02, atol=1e-4)
    torch.testing.assert_close(soft.bias, twice.bias, rtol=0.02, atol=0.01)


def test_a_feature_that_changes_by_rounding_alone_tells_nothing(task):
    """Its last bit is the label: taken at its word, it would beat what a feature tells in part."""
    _, volumes, labels = task
    features = volumes.flatten(1)[:, :3].clone()
    features[:, 2] = torch.where(labels == 1, torch.tensor(0.1).nextafter(torch.tensor(1.0)), 0.1)
    head, without = Head(3, 1), Head(2, 1)
    LinearProbe()(nn.Identity(), head, features.split(50), labels)
    LinearProbe()(nn.Identity(), without, features[:, :2].split(50), labels)
    assert head.weight[0, 2].abs() < 1e-3
    torch.testing.assert_close(head.weight[:, :2], without.weight, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(head.bias, without.bias, rtol=1e-3, atol=1e-5)


def test_what_cannot_be_fitted_is_told(task):
    encoder, volumes, labels = task
    for same in (0 * labels, 0 * labels + 1):
        with pytest.raises(InputError, match=r"^model\.probe needs volumes of both labels, but all 120 are alike: "):
            LinearProbe()(encoder, Head(3, 1), [volumes], same)
    with pytest.raises(InputError, match=r"^penalty is 0\.0: give a number above 0$"):
        LinearProbe(penalty=0.0)


def student(options: Callable[..., list[str]], folder: Path, runs: Path, *further: str):
    """The recipe, without ultrasound's teacher, from the pre-trained encoder of the pipeline."""
    files = ("--config", str(POD / "arms/student.yaml"), "--config", str(POD / "controls/own.yaml"))
    upstream = ("--model.init_args.init_encoder", str(runs / "mae/checkpoints/best.ckpt"))
    return build(options("student", folder, *files, *upstream, "--model.init_args.teacher", "null", *further))


def test_a_student_starts_from_the_probe_and_a_resumed_one_from_where_it_was(pipeline, options, tmp_path):
    """A learning rate of next to nothing leaves the head as it was set."""
    still = ("--model.init_args.optimisation.init_args.lr", "1e-12", "--trainer.max_epochs", "2")
    cli = student(options, tmp_path / "probed", pipeline, *still)
    seen = {}
    probe = cli.model.probe

    def record(encoder, head, batches, targets):
        batches = list(batches)
        probe(encoder, head, batches, targets)
        seen.update(volumes=torch.cat(batches), targets=targets, weight=head.weight.detach().clone())

    cli.model.probe = record
    cli.trainer.fit(cli.model, cli.datamodule)
    torch.testing.assert_close(cli.model.head.weight, seen["weight"], rtol=1e-3, atol=1e-6)
    split = cli.datamodule.manifest["split"]
    assert len(seen["volumes"]) == len(seen["targets"]) == split.isin(["train", "unlabelled"]).sum()
    labels = torch.tensor(cli.datamodule.train_labels, dtype=torch.float32)
    assert torch.equal(
        seen["targets"][split[split.isin(["train", "unlabelled"])].eq("train").to_numpy(copy=True)], labels
    )

    def refuse(*_):
        pytest.fail("a resumed student was probed again")

    again = student(options, tmp_path / "again", pipeline, *still[:2], "--trainer.max_epochs", "3")
    again.model.probe = refuse
    again.trainer.fit(again.model, again.datamodule, ckpt_path=str(tmp_path / "probed/checkpoints/last.ckpt"))
    torch.testing.assert_close(again.model.head.weight, seen["weight"], rtol=1e-3, atol=1e-6)


def test_without_soft_labels_the_probe_learns_from_labels(pipeline, options, tmp_path):
    cli = student(options, tmp_path, pipeline, "--model.init_args.transfer", "null", "--trainer.max_epochs", "2")
    told = []
    cli.model.probe = lambda encoder, head, batches, targets: told.append(targets)
    cli.trainer.fit(cli.model, cli.datamodule)
    assert isinstance(cli.model, StudentKD)
    assert torch.equal(told[0], torch.tensor(cli.datamodule.train_labels, dtype=torch.float32))


def test_a_mean_teacher_starts_from_the_probe_too(pipeline, options, tmp_path):
    mean_teacher = ("--model.init_args.transfer", "poddistill.losses.consistency.MeanTeacher")
    cli = student(options, tmp_path, pipeline, *mean_teacher, "--trainer.max_epochs", "2")
    weights = []
    attach = cli.model.transfer.attach

    def record(network):
        weights.append(network[1].weight.detach().clone())
        attach(network)

    cli.model.transfer.attach = record
    cli.model.probe = lambda encoder, head, batches, targets: head.weight.data.fill_(0.25)
    cli.trainer.fit(cli.model, cli.datamodule)
    assert [weight.unique().tolist() for weight in weights] == [[0.25]]
