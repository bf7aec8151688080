import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import Generator, Tensor

from data_modules.augmentation import Augmentation, Change, ClipAugmentation, VolumeAugmentation, apply, standard_normal
from data_modules.errors import InputError

STILL = {"rotation": 0.0, "zoom": 0.0, "shift": 0.0, "contrast": 0.0, "gamma": 0.0, "noise": 0.0}
AUGMENTATIONS = [VolumeAugmentation, ClipAugmentation]


@pytest.fixture
def image() -> Tensor:
    return torch.rand(6, 1, 5, 12, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_the_result_has_shape_and_range_and_follows_the_seed(kind: type[Augmentation], image: Tensor) -> None:
    torch.manual_seed(1)
    first = kind()(image)
    torch.manual_seed(1)
    torch.testing.assert_close(kind()(image), first, rtol=0, atol=0)
    assert first.shape == image.shape
    assert first.min() >= 0
    assert first.max() <= 1
    assert not torch.equal(kind()(image), first)
    generator = torch.Generator().manual_seed(1)
    torch.testing.assert_close(kind()(image, generator), first, rtol=0, atol=0)


def test_with_all_magnitudes_0_nothing_changes(image: Tensor) -> None:
    torch.testing.assert_close(VolumeAugmentation(flip=0, slices=0, **STILL)(image), image, atol=1e-6, rtol=0)
    torch.testing.assert_close(ClipAugmentation(flip=0, reverse=0, **STILL)(image), image, atol=1e-6, rtol=0)


def test_mirroring_is_left_to_right(image: Tensor) -> None:
    mirrored = VolumeAugmentation(flip=1, slices=0, **STILL)(image)
    torch.testing.assert_close(mirrored, image.flip(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(ClipAugmentation(flip=1, reverse=0, **STILL)(image), image.flip(4), atol=1e-6, rtol=0)


def test_a_clip_may_run_backwards(image: Tensor) -> None:
    torch.testing.assert_close(ClipAugmentation(flip=0, reverse=1, **STILL)(image), image.flip(2), atol=1e-6, rtol=0)


def test_slices_shift_by_whole_steps_and_repeat_at_the_edge(image: Tensor) -> None:
    shifted = VolumeAugmentation(flip=0, slices=1, **STILL)(image.repeat(10, 1, 1, 1, 1))
    choices = [torch.tensor(order) for order in ([0, 0, 1, 2, 3], [0, 1, 2, 3, 4], [1, 2, 3, 4, 4])]
    found = set()
    for before, after in zip(image.repeat(10, 1, 1, 1, 1), shifted, strict=True):
        errors = [(before[:, order] - after).abs().max().item() for order in choices]
        assert min(errors) < 1e-5
        found.add(errors.index(min(errors)))
    assert found == {0, 1, 2}


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_planes_turn_as_a_rigid_body_by_no_more_than_the_given_angle(kind: type[Augmentation]) -> None:
    image = torch.zeros(40, 1, 3, 33, 65)
    y, x = torch.meshgrid(torch.arange(33.0) - 16, torch.arange(65.0) - 32, indexing="ij")
    for offset in (0.0, 12.0):  # two blobs, 12 pixels apart
        image += torch.exp(-((y - 0) ** 2 + (x - offset) ** 2) / 8)
    turned = kind(**{**STILL, "flip": 0.0, "rotation": 20.0})(image.clamp(0, 1))  # type: ignore[call-arg]
    first = turned[:, 0, 0]
    torch.testing.assert_close(turned[:, 0, 2], first)  # all planes of a sample alike
    angles = []
    for plane in first:
        mass = plane * (x.square() + y.square() > 36)  # the outer blob alone
        centre_x, centre_y = (mass * x).sum() / mass.sum(), (mass * y).sum() / mass.sum()
        assert math.isclose(math.hypot(centre_x, centre_y), 12, abs_tol=0.3)  # its distance from the centre stays
        angles.append(math.degrees(math.atan2(centre_y, centre_x)))
    assert max(map(abs, angles)) < 21
    assert max(angles) > 12
    assert min(angles) < -12


def test_a_change_is_interpolated_in_the_plane_with_edge_values_outside(image: Tensor) -> None:
    change = ClipAugmentation(rotation=30, zoom=0.3, shift=0.3).draw(image)
    assert change.matrix is not None
    assert change.order is not None
    found = apply(image, Change(order=change.order, matrix=change.matrix))
    height, width = image.shape[-2:]
    rows, columns = np.mgrid[:height, :width]
    # pixel centres, from -1 to 1 between the outer edges
    points = np.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1, np.ones((height, width))])
    for before, after, matrix, order in zip(image, found, change.matrix, change.order, strict=True):
        x, y = np.tensordot(matrix.double().numpy(), points, 1)
        where = [((y + 1) * height - 1) / 2, ((x + 1) * width - 1) / 2]
        for plane, source in enumerate(order):
            expected = ndimage.map_coordinates(before[0, source].double().numpy(), where, order=1, mode="nearest")
            np.testing.assert_allclose(after[0, plane].numpy(), expected, atol=2e-5)


def test_intensities_change_by_contrast_then_gamma_then_noise(image: Tensor) -> None:
    drawn = VolumeAugmentation(contrast=0.5, gamma=0.5, noise=0.2).draw(image)
    assert drawn.gain is not None
    assert drawn.exponent is not None
    assert drawn.deviation is not None
    assert drawn.seed is not None
    change = Change(gain=drawn.gain, exponent=drawn.exponent, deviation=drawn.deviation, seed=drawn.seed)
    noise = standard_normal(image.shape, drawn.seed, image.device).double().numpy()
    pairs = zip(image.double().numpy(), apply(image, change).numpy(), strict=True)
    for i, (before, after) in enumerate(pairs):
        expected = np.clip(before.mean() + float(drawn.gain[i]) * (before - before.mean()), 0, 1)
        expected = expected ** float(drawn.exponent[i]) + float(drawn.deviation[i]) * noise[i]
        np.testing.assert_allclose(after, np.clip(expected, 0, 1), atol=2e-6)


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_a_change_can_be_repeated_and_a_sample_changes_as_it_would_alone(kind: type[Augmentation]) -> None:
    image = torch.rand(9, 1, 20, 50, 60)  # more than is changed together
    before = image.clone()
    change = kind().draw(image)  # type: ignore[attr-defined]
    changed = apply(image, change)
    torch.testing.assert_close(image, before, rtol=0, atol=0)
    torch.testing.assert_close(apply(image, change), changed, rtol=0, atol=0)
    for i in range(len(image)):
        alone = apply(image[i : i + 1], change[i : i + 1])
        torch.testing.assert_close(alone, changed[i : i + 1], rtol=0, atol=1e-6)


def test_what_is_drawn_is_uniform_within_its_bounds_and_independent() -> None:
    image = torch.zeros(4000, 1, 5, 6, 8)
    options = {"rotation": 20.0, "zoom": 0.1, "shift": 0.2, "contrast": 0.3, "gamma": 0.4, "noise": 0.05}
    change = VolumeAugmentation(flip=0.3, slices=0, **options).draw(image, Generator().manual_seed(0))  # type: ignore[arg-type]
    assert change.order is not None
    assert change.matrix is not None
    matrix = change.matrix.double().numpy()
    cos, sin = matrix[:, 1, 1], matrix[:, 1, 0] * 6 / 8  # both are divided by the zoom; H / W = 6 / 8
    np.testing.assert_allclose(matrix[:, 0, 0], cos)
    np.testing.assert_allclose(matrix[:, 0, 1], -sin * 6 / 8, atol=1e-7)
    drawn = {
        "rotation": np.degrees(np.arctan2(sin, cos)),
        "zoom": 1 / np.hypot(sin, cos) - 1,
        "shift": matrix[:, 0, 2] / 2,
        "shift down": matrix[:, 1, 2] / 2,
        "contrast": np.asarray(change.gain) - 1,
        "gamma": np.log(np.asarray(change.exponent)),
        "noise": 2 * np.asarray(change.deviation) - options["noise"],  # from 0 to the bound
    }
    for name, values in drawn.items():
        bound = options[name.split()[0]]
        assert np.abs(values).max() <= bound * (1 + 1e-5)
        assert stats.kstest(values, stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-3, name
    flipped = change.order[:, 0].numpy() > 0
    assert abs(flipped.mean() - 0.3) < 0.03
    correlation = np.corrcoef([*drawn.values(), flipped]) - np.eye(len(drawn) + 1)
    assert np.abs(correlation).max() < 0.07


def test_noise_is_standard_normal_and_white() -> None:
    seeds = torch.tensor([3, 4, 5])
    noise = standard_normal(torch.Size((3, 1, 63, 65, 101)), seeds, torch.device("cpu"))
    torch.testing.assert_close(noise[1], standard_normal(noise[1:2].shape, seeds[1:2], noise.device)[0])
    values = noise.double().flatten(1).numpy()
    assert abs(values.mean()) < 5e-3
    assert abs(values.std() - 1) < 3e-3
    assert abs(stats.skew(values, axis=None)) < 0.01
    assert abs(stats.kurtosis(values, axis=None)) < 0.02
    assert stats.kstest(values.ravel(), stats.norm.cdf).statistic < 2e-3
    for limit in (2, 3, 4):
        expected = 2 * stats.norm.sf(limit) * values.size
        assert abs((np.abs(values) > limit).sum() - expected) < 5 * math.sqrt(expected)
    sample = values[0]
    for lag in (1, 2, 101, 65 * 101, *(len(sample) * np.array([1, 2, 3]) // 4)):  # in and across rows and slices
        for left, right in ((sample[:-lag], sample[lag:]), (sample[:-lag] ** 2, sample[lag:] ** 2)):
            assert abs(np.corrcoef(left, right)[0, 1]) < 5 / math.sqrt(len(left))
    assert np.abs(np.corrcoef(values) - np.eye(3)).max() < 0.01


@pytest.mark.parametrize("option", [{"noise": -0.1}, {"flip": 1.5}, {"zoom": 2.0}])
def test_a_wrong_magnitude_is_named(option: dict[str, float]) -> None:
    with pytest.raises(InputError, match=rf"augmentation\.{next(iter(option))}"):
        VolumeAugmentation(**option)  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
@pytest.mark.parametrize("shape", [(1, 1, 7, 12, 10), (1, 1, 8, 12, 10), (3, 1, 6, 12, 10)])
def test_threads_change_nothing(monkeypatch, threads, shape):
    """Planes of few samples are shared among the threads, in as many equal parts as there are."""
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    change = VolumeAugmentation().draw(image, torch.Generator().manual_seed(1))
    expected = apply(image, change)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert torch.equal(apply(image, change), expected)
