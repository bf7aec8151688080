"""MONAI's networks as encoders of the student."""

import pytest
import torch
from monai.networks.nets.densenet import DenseNet
from monai.networks.nets.resnet import resnet10
from torch import Tensor, nn
from torch.nn import functional

from data_modules.errors import InputError
from poddistill.losses.labels import WeightedBCE
from poddistill.nets.convolutional import DenseNet3D, ResNet3D
from poddistill.pod.student_kd import StudentKD
from poddistill.training.optimisation import AdamWCosine

TINY = {
    "resnet": lambda: ResNet3D(widths=(4, 4, 6, 8)),
    "bottleneck": lambda: ResNet3D(widths=(2, 2, 3, 4), block="bottleneck"),
    "densenet": lambda: DenseNet3D(growth_rate=3, block_config=(2, 2, 2), init_features=4),
}
LARGE = {
    "resnet": lambda: ResNet3D(widths=(2, 2, 4, 4), stem_kernel=(3, 3, 3), stem_stride=(2, 2, 2), stem_pool=True),
    "densenet": lambda: DenseNet3D(growth_rate=2, block_config=(1, 1, 1, 1), init_features=2),
}


def randomise_norms(network: nn.Module) -> None:
    for part in network.modules():
        if isinstance(part, nn.BatchNorm3d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
            nn.init.normal_(part.running_mean)


@pytest.mark.parametrize("name", TINY)
def test_a_volume_becomes_features_with_a_gradient_to_every_weight(name):
    torch.manual_seed(0)
    encoder = TINY[name]()
    features = encoder(torch.rand(2, 1, 16, 48, 48))
    assert features.shape == (2, encoder.width)
    (features * torch.randn_like(features)).sum().backward()
    # A weight without gradient would stop a training in several processes.
    without = [key for key, value in encoder.named_parameters() if value.grad is None or not value.grad.any()]
    assert [key for key in without if not key.endswith("bias")] == []
    assert all(value.grad is not None for value in encoder.parameters())


@pytest.mark.parametrize("name", LARGE)
@torch.no_grad()
def test_large_volumes_pass(name):
    encoder = LARGE[name]().eval()
    features = encoder(torch.rand(1, 1, 96, 160, 160))
    assert features.shape == (1, encoder.width)
    assert features.isfinite().all()


@torch.no_grad()
def test_the_residual_network_is_monais_resnet_10():
    torch.manual_seed(0)
    theirs = resnet10(n_input_channels=1, conv1_t_stride=2, widen_factor=1 / 16, feed_forward=False).eval()
    ours = ResNet3D(widths=(4, 8, 16, 32), stem_kernel=(7, 7, 7), stem_stride=(2, 2, 2), stem_pool=True).eval()
    randomise_norms(theirs)
    ours.network.load_state_dict(theirs.state_dict())
    volume = torch.rand(2, 1, 16, 24, 32)
    torch.testing.assert_close(ours(volume), theirs(volume))


@torch.no_grad()
def test_the_dense_network_averages_the_last_map_of_monais():
    torch.manual_seed(0)
    theirs = DenseNet(3, 1, 1, init_features=4, growth_rate=2, block_config=(2, 3)).eval()
    ours = DenseNet3D(growth_rate=2, block_config=(2, 3), init_features=4).eval()
    randomise_norms(theirs)
    weights = {key: value for key, value in theirs.state_dict().items() if not key.startswith("class_layers.out")}
    ours.network.load_state_dict(weights)
    volume = torch.rand(2, 1, 12, 16, 20)
    assert ours.width == (4 + 2 * 2) // 2 + 3 * 2
    torch.testing.assert_close(ours(volume), functional.relu(theirs.features(volume)).mean((2, 3, 4)))


@pytest.mark.parametrize("name", TINY)
def test_the_student_trains_with_them_where_layers_share_one_rate(name):
    torch.manual_seed(0)
    student = StudentKD(TINY[name](), WeightedBCE(), AdamWCosine())
    volume, labels = torch.rand(4, 1, 16, 32, 32), torch.tensor([1.0, 0.0, 1.0, 0.0])
    optimizer, _ = AdamWCosine(lr=1e-2, warmup_epochs=0)(student, 10, 1)

    def loss() -> Tensor:
        return student.label_loss(student(volume), labels)

    first = loss()
    for _ in range(5):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss() < first
    with pytest.raises(InputError, match=r"layer_decay is 0\.75, but StudentKD has no layered encoder: set it to 1"):
        AdamWCosine(layer_decay=0.75)(student, 10, 1)


def test_volumes_too_small_for_the_blocks_are_told_and_the_smallest_pass():
    encoder = DenseNet3D(growth_rate=2, block_config=(1, 1, 1), init_features=2).eval()
    assert encoder(torch.rand(1, 1, 13, 13, 13)).shape == (1, encoder.width)
    with pytest.raises(InputError, match=r"^volumes of \(12, 48, 48\) voxels are too small .* at least 13: give fewer"):
        encoder(torch.rand(1, 1, 12, 48, 48))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ResNet3D(layers=(1, 1, 1)), r"layers is \(1, 1, 1\): give 4 of at least 1"),
        (lambda: ResNet3D(widths=(8, 8, 0, 8)), r"widths is \(8, 8, 0, 8\): give 4 of at least 1"),
        (lambda: ResNet3D(block="wide"), "block is 'wide': choose basic or bottleneck"),
        (lambda: ResNet3D(stem_kernel=(3, 4, 3)), r"stem_kernel is \(3, 4, 3\): give odd sides"),
        (lambda: ResNet3D(stem_stride=(0, 2, 2)), r"stem_stride is \(0, 2, 2\): give 3 of at least 1"),
        (lambda: DenseNet3D(growth_rate=0), "growth_rate is 0: give a number of at least 1"),
        (lambda: DenseNet3D(block_config=()), r"block_config is \(\): give a number of at least 1"),
        (lambda: DenseNet3D(dropout=1.0), r"dropout is 1\.0: give a probability in \[0, 1\)"),
    ],
)
def test_wrong_options_are_told_in_one_line(make, words):
    with pytest.raises(InputError, match=f"^{words}$"):
        make()
