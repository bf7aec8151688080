import math

import pytest
import torch
from torch import Tensor

from data_modules.augmentation import Augmentation, ClipAugmentation, VolumeAugmentation
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


@pytest.mark.parametrize("option", [{"noise": -0.1}, {"flip": 1.5}, {"zoom": 2.0}])
def test_a_wrong_magnitude_is_named(option: dict[str, float]) -> None:
    with pytest.raises(InputError, match=rf"augmentation\.{next(iter(option))}"):
        VolumeAugmentation(**option)  # type: ignore[arg-type]
