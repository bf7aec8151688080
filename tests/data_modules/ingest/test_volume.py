import itertools

import nibabel as nib
import numpy as np
import pytest

from data_modules.ingest.images import UnusableError
from data_modules.ingest.volume import to_grid

SHAPE, SPACING = (8, 20, 24), (4.0, 2.0, 2.0)


def corner_phantom() -> tuple[np.ndarray, np.ndarray]:
    """A volume in RAS order, 4 x 2 x 2 mm, whose eight corners have values of their own."""
    volume = np.zeros((8, 24, 20), np.float32)  # right, anterior, superior
    for number, corner in enumerate(itertools.product((0, 1), repeat=3)):
        index = tuple(slice(-2, None) if high else slice(0, 2) for high in corner)
        volume[index] = 100 + 100 * number
    return volume, nib.affines.from_matvec(np.diag([4.0, 2.0, 2.0]), [-14, -23, -19])


ORIENTATIONS = [
    "".join(codes) for axes in itertools.permutations(("RL", "AP", "SI")) for codes in itertools.product(*axes)
]


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_axes_grow_to_left_inferior_and_posterior_whatever_the_input_order(codes: str) -> None:
    volume, affine = corner_phantom()
    image = nib.Nifti1Image(volume, affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes))
    turned = image.as_reoriented(turn)
    array, record = to_grid(turned.get_fdata(dtype=np.float32), turned.affine, SHAPE, SPACING)
    # by hand: D is R reversed, H is S reversed, W is A reversed
    expected = volume[::-1, ::-1, ::-1].transpose(0, 2, 1)
    low, high = np.percentile(expected, (1, 99))
    np.testing.assert_allclose(array, np.clip((expected - low) / (high - low), 0, 1), atol=1e-3)
    assert record["original"]["orientation"] == codes
    assert record["stored"]["orientation"] == "LIP"


def test_right_superior_anterior_is_the_first_corner() -> None:
    volume, affine = corner_phantom()
    array, _ = to_grid(volume, affine, SHAPE, SPACING)
    assert volume.max() == volume[-1, -1, -1]  # the right, anterior, superior corner is the brightest
    assert array[0, 0, 0] == 1.0


def test_a_volume_that_has_the_grid_is_only_scaled() -> None:
    volume = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[-4.0, 0, 0], [0, 0, -2.0], [0, -2.0, 0]])
    array, record = to_grid(volume, affine, SHAPE, SPACING)
    assert [step["step"] for step in record["steps"]] == ["ScaleIntensityRange"]
    low, high = np.percentile(volume, (1, 99))
    np.testing.assert_array_equal(array, np.clip((volume - low) / (high - low), 0, 1).astype(np.float16))
    assert array.dtype == np.float16


def test_crop_and_pad_are_centred_and_pad_with_the_lowest_value() -> None:
    affine = nib.affines.from_matvec(np.array([[-4.0, 0, 0], [0, 0, -2.0], [0, -2.0, 0]]))
    volume = np.random.default_rng(0).random((4, 26, 24)).astype(np.float32) - 5
    array, _ = to_grid(volume, affine, SHAPE, SPACING)
    assert (array[:2] == 0).all()
    assert (array[6:] == 0).all()
    inner = volume[:, 3:23]
    low, high = np.percentile(np.pad(inner, ((2, 2), (0, 0), (0, 0)), constant_values=volume[:, 3:23].min()), (1, 99))
    np.testing.assert_allclose(array[2:6], np.clip((inner - low) / (high - low), 0, 1), atol=2e-3)


def test_coarser_sampling_does_not_alias() -> None:
    affine = nib.affines.from_matvec(np.array([[-4.0, 0, 0], [0, 0, -0.5], [0, -0.5, 0]]))
    row = np.cos(np.pi * np.arange(96) * 0.98)  # far above what 2 mm can show
    volume = np.broadcast_to(row, (8, 80, 96)).astype(np.float32).copy()
    volume[:, :40] += 10  # a step that stays, so that there is contrast
    array, _ = to_grid(volume, affine, SHAPE, SPACING)
    assert np.ptp(array[4, 3, 2:-2].astype(float)) < 0.01


@pytest.mark.parametrize("affine", [np.zeros((4, 4)), np.diag([1.0, np.nan, 1.0, 1.0])])
def test_a_singular_affine_is_rejected(affine: np.ndarray) -> None:
    with pytest.raises(UnusableError, match="affine is singular"):
        to_grid(np.random.default_rng(0).random((4, 4, 4)).astype(np.float32), affine, SHAPE, SPACING)


def test_a_volume_whose_content_is_cropped_away_is_rejected() -> None:
    volume = np.zeros((60, 60, 60), np.float32)
    volume[0] = 1
    with pytest.raises(UnusableError, match="no contrast"):
        to_grid(volume, np.diag([4.0, 2.0, 2.0, 1.0]), SHAPE, SPACING)
