"""How far samples are apart, against plain loops."""

import math

import numpy as np
import pytest
import torch

from poddistill.losses.discrepancy import BANDWIDTHS, mmd, moment_distance, sinkhorn


@pytest.fixture
def samples():
    torch.manual_seed(0)
    return torch.randn(5, 3), 0.5 + torch.randn(7, 3)


def test_mmd_is_the_mean_kernel_within_less_that_between(samples):
    x, y = (sample.double().numpy() for sample in samples)
    points = [*x, *y]
    apart = sorted(sum((a - b) ** 2) for a in points for b in points if (a != b).any())
    bandwidth = apart[(len(apart) - 1) // 2]

    def kernel(a, b):
        return sum(math.exp(-sum((a - b) ** 2) / (ratio * bandwidth)) for ratio in BANDWIDTHS) / len(BANDWIDTHS)

    within_x = np.mean([kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    within_y = np.mean([kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    between = np.mean([kernel(a, b) for a in x for b in y])
    assert mmd(*samples).item() == pytest.approx(within_x + within_y - 2 * between, abs=1e-5)


def test_mmd_of_one_distribution_is_0_on_average_and_grows_with_a_shift():
    generator = torch.Generator().manual_seed(0)
    means = []
    for shift in (0.0, 0.5, 1.0, 2.0):
        pairs = [torch.randn(2, 12, 4, generator=generator) for _ in range(200)]
        values = torch.stack([mmd(x, y + shift) for x, y in pairs])
        means.append(values.mean().item())
        if shift == 0:
            assert abs(means[0]) < 4 * values.std().item() / math.sqrt(200)
            assert values.min() < 0 < values.max()
    assert means[0] + 0.02 < means[1] < means[2] < means[3]


@pytest.mark.parametrize("distance", [mmd, sinkhorn])
def test_order_and_a_common_rotation_do_not_matter(distance, samples):
    x, y = samples
    rotation = torch.linalg.qr(torch.randn(3, 3)).Q
    expected = distance(x, y).item()
    assert distance(x[torch.randperm(5)], y[torch.randperm(7)]).item() == pytest.approx(expected, abs=1e-5)
    assert distance(x @ rotation, y @ rotation).item() == pytest.approx(expected, abs=1e-5)


def test_mmd_does_not_depend_on_the_unit_or_the_origin(samples):
    x, y = samples
    assert mmd(3 * x + 1, 3 * y + 1).item() == pytest.approx(mmd(x, y).item(), abs=1e-5)


def test_mmd_draws_points_to_a_sample_that_is_one_point_many_times():
    x = torch.tensor([[1.0, 0.0], [3.0, 0.0]], requires_grad=True)
    mmd(x, torch.zeros(40, 2)).backward()
    assert x.grad[:, 0].sum() > 0.01  # a step against the gradient goes to the point
    same = torch.ones(3, 2, requires_grad=True)
    loss = mmd(same, torch.ones(4, 2))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert same.grad.isfinite().all()


def test_equal_points_far_from_the_origin_are_not_apart():
    """By a dot product their distances would be rounding errors, of which the bandwidth would be the median."""
    x, same = torch.tensor([[1.0, 0.0], [3.0, 0.0], [2.0, 1.0]]), torch.zeros(40, 2)
    away = 4096.5  # its square has more digits than a float32, and the differences have not
    assert mmd(x + away, same + away).item() == mmd(x, same).item() > 0.1
    assert mmd(same + away, same + away).item() == pytest.approx(0, abs=1e-6)


def test_moment_distance_compares_means_and_covariances(samples):
    x, y = samples
    mean, covariance = y.mean(0), y.T.cov()
    own = np.cov(x.double().numpy().T)
    expected = sum((x.mean(0) - mean) ** 2) / 3 + sum(
        (own[i, j] - covariance[i, j].item()) ** 2 for i in range(3) for j in range(3)
    ) / (4 * 9)
    assert moment_distance(x, mean, covariance).item() == pytest.approx(expected.item(), rel=1e-5)
    assert moment_distance(y, mean, covariance).item() == pytest.approx(0, abs=1e-10)
    rotation = torch.linalg.qr(torch.randn(3, 3)).Q
    rotated = moment_distance(x @ rotation, mean @ rotation, rotation.T @ covariance @ rotation)
    assert rotated.item() == pytest.approx(expected.item(), rel=1e-4)


def test_sinkhorn_moves_one_sample_onto_the_other_at_the_cost_of_the_plan(samples):
    x, y = (sample.double().numpy() for sample in samples)
    cost = np.array([[1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in y] for a in x])
    kernel = np.exp(-cost / 0.1)
    left, right = np.ones(5), np.ones(7)
    for _ in range(100):
        for i in range(5):
            left[i] = 1 / 5 / sum(kernel[i, j] * right[j] for j in range(7))
        for j in range(7):
            right[j] = 1 / 7 / sum(kernel[i, j] * left[i] for i in range(5))
    expected = sum(left[i] * kernel[i, j] * right[j] * cost[i, j] for i in range(5) for j in range(7))
    assert sinkhorn(*samples).item() == pytest.approx(expected, rel=1e-4)


def test_the_gradient_of_sinkhorn_is_that_of_the_regularised_minimum(samples):
    x, y = (sample.double() for sample in samples)

    def minimum(points):
        """Dual value at the optimum: mean of both potentials, each a tenth of a logarithm."""
        cost = 1 - torch.nn.functional.normalize(points) @ torch.nn.functional.normalize(y).T
        rows, columns = torch.zeros(5, 1).double(), torch.zeros(1, 7).double()
        for _ in range(2000):
            rows = -math.log(5) - (columns - cost / 0.1).logsumexp(1, keepdim=True)
            columns = -math.log(7) - (rows - cost / 0.1).logsumexp(0, keepdim=True)
        return 0.1 * (rows.mean() + columns.mean()).item()

    points = x.clone().requires_grad_()
    sinkhorn(points, y, iterations=2000).backward()
    step = torch.zeros_like(x)
    step[2, 1] = 1e-5
    slope = (minimum(x + step) - minimum(x - step)) / 2e-5
    assert points.grad[2, 1].item() == pytest.approx(slope, rel=1e-4)
