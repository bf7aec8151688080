import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data_modules.ingest.images import UnusableError
from data_modules.ingest.masks import find_middle, is_blank, is_unit

SHAPE = (12, 10, 8)
TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
AFFINE = nib.affines.from_matvec(TURN * [0.7, 0.9, 5.0], [10, -20, 30])
BOX = (slice(2, 5), slice(6, 8), slice(0, 5))
MIDDLE = (AFFINE @ [3, 6.5, 2, 1])[:3]


def mask_of(*boxes: tuple[slice, slice, slice]) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    for box in boxes:
        mask[box] = 2
    return mask


def save(file: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(values, affine), file)
    return file


def test_the_middle_is_that_of_the_box_around_all_masks(tmp_path: Path) -> None:
    one = save(tmp_path / "a.nii.gz", mask_of(BOX))
    middle, remarks = find_middle([one], SHAPE, AFFINE)
    np.testing.assert_allclose(middle, MIDDLE, atol=1e-4)
    assert remarks == []
    two = save(tmp_path / "b.nii.gz", mask_of((slice(10, 11), slice(1, 2), slice(7, 8))))
    middle, _ = find_middle([one, two], SHAPE, AFFINE)
    np.testing.assert_allclose(middle, (AFFINE @ [6, 4, 3.5, 1])[:3], atol=1e-4)


ORDERS = ["".join(codes) for axes in itertools.permutations(("RL", "AP", "SI")) for codes in itertools.product(*axes)]


@pytest.mark.parametrize("codes", ORDERS)
def test_a_mask_belongs_to_its_volume_in_whatever_order_its_axes_are_stored(tmp_path: Path, codes: str) -> None:
    image = nib.Nifti1Image(mask_of(BOX), AFFINE)
    turn = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(codes))
    nib.save(image.as_reoriented(turn), tmp_path / "a.nii.gz")
    middle, remarks = find_middle([tmp_path / "a.nii.gz"], SHAPE, AFFINE)
    np.testing.assert_allclose(middle, MIDDLE, atol=1e-3)
    assert remarks == []


def test_a_mask_whose_header_nobody_filled_in_is_taken_voxel_by_voxel(tmp_path: Path) -> None:
    file = save(tmp_path / "a.nii.gz", mask_of(BOX), np.eye(4))
    middle, remarks = find_middle([file], SHAPE, AFFINE)
    np.testing.assert_allclose(middle, MIDDLE, atol=1e-4)
    assert remarks == ["mask 1 of 1 taken voxel by voxel: its header states 1 x 1 x 1 mm"]
    middle, remarks = find_middle([file], SHAPE[::-1], AFFINE)
    assert middle is None
    assert remarks == ["mask 1 of 1 ignored: not on the volume's grid"]


def shifted(voxels: float) -> np.ndarray:
    return AFFINE @ nib.affines.from_matvec(np.eye(3), [0, voxels, 0])


@pytest.mark.parametrize(
    ("values", "affine", "reason"),
    [
        (mask_of(BOX), shifted(0.4), "not on the volume's grid"),
        (mask_of(BOX), shifted(1), "not on the volume's grid"),
        (mask_of(BOX), AFFINE @ np.diag([1, 1.01, 1, 1]), None),
        (mask_of(BOX), AFFINE @ np.diag([1, 1.05, 1, 1]), "not on the volume's grid"),
        (mask_of(BOX)[::2], AFFINE @ np.diag([2, 1, 1, 1]), "not on the volume's grid"),
        (mask_of(), AFFINE, "empty"),
        (mask_of(BOX)[..., None].repeat(2, 3), AFFINE, "4D (12 x 10 x 8 x 2): it holds several volumes"),
    ],
)
def test_a_mask_that_is_of_no_use_costs_a_remark_and_nothing_else(
    tmp_path: Path, values: np.ndarray, affine: np.ndarray, reason: str | None
) -> None:
    good = save(tmp_path / "good.nii.gz", mask_of(BOX))
    middle, remarks = find_middle([save(tmp_path / "a.nii.gz", values, affine), good], SHAPE, AFFINE)
    np.testing.assert_allclose(middle, MIDDLE, atol=0.1)
    assert remarks == ([f"mask 1 of 2 ignored: {reason}"] if reason else [])


def test_missing_and_damaged_masks_are_told_without_their_names(tmp_path: Path) -> None:
    (tmp_path / "Jane_Roe.nii.gz").write_bytes(b"damaged")
    middle, remarks = find_middle([tmp_path / "Jane_Roe.nii.gz", tmp_path / "Roe.nii"], SHAPE, AFFINE)
    assert middle is None
    assert remarks == ["mask 1 of 2 ignored: not a NIfTI file", "mask 2 of 2 ignored: FileNotFoundError"]


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_blank_masks_are_told_from_those_with_a_single_voxel(tmp_path: Path, kind: type) -> None:
    values = np.zeros((200, 100, 90), kind)
    assert is_blank(save(tmp_path / "a.nii.gz", values))
    values[-1, -1, -1] = 1
    assert not is_blank(save(tmp_path / "b.nii.gz", values))
    (tmp_path / "c.nii.gz").write_bytes((tmp_path / "a.nii.gz").read_bytes()[:-20])
    with pytest.raises(UnusableError, match="ends early"):
        is_blank(tmp_path / "c.nii.gz")


@pytest.mark.parametrize(("zooms", "unit"), [((1, 1, 1), True), ((1, 1, 1.01), False), ((0.5, 0.5, 4), False)])
def test_voxels_of_one_millimetre_are_told_whatever_their_directions(zooms: tuple[float, ...], unit: bool) -> None:
    assert is_unit(nib.affines.from_matvec(TURN * zooms, [1, 2, 3])) == unit
