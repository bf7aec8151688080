import itertools

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation, ResizeWithPadOrCrop, Spacing

from data_modules.ingest.images import UnusableError
from data_modules.ingest.volume import correct_bias, to_grid

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


@pytest.mark.parametrize("spacing", [(4.0, 2.0, 2.0), (3.0, 1.1, 2.6), (6.0, 2.0, 1.7)])
@pytest.mark.parametrize("size", [(9, 31, 40), (4, 50, 17)])
def test_sampling_only_what_is_kept_gives_what_sampling_all_and_cropping_gives(
    spacing: tuple[float, float, float], size: tuple[int, int, int]
) -> None:
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    affine = nib.affines.from_matvec(turn * [5.0, 1.5, 2.0], [10, -7, 3])
    volume = np.random.default_rng(0).random(size).astype(np.float32)
    array, record = to_grid(volume, affine, SHAPE, spacing)
    image = Orientation("LIP")(MetaTensor(torch.from_numpy(volume)[None], affine=torch.from_numpy(affine)))
    for step in record["steps"]:
        if step["step"] == "DiscreteGaussian":
            variance = [sigma**2 for sigma in step["sigma_voxels"]][::-1]
            smooth = sitk.DiscreteGaussian(sitk.GetImageFromArray(image[0].numpy()), variance, useImageSpacing=False)
            image[0] = torch.from_numpy(sitk.GetArrayFromImage(smooth))
    image = ResizeWithPadOrCrop(SHAPE)(Spacing(spacing, mode="bilinear", padding_mode="border")(image))
    np.testing.assert_allclose(record["stored"]["affine"], image.affine, atol=1e-4)
    low, high = record["steps"][-1]["values"]
    reference = np.clip((image[0].numpy() - low) / (high - low), 0, 1)
    inside = ResizeWithPadOrCrop(SHAPE)(MetaTensor(torch.ones(1, *record["steps"][-2]["from"])))[0].numpy() > 0
    np.testing.assert_allclose(array[inside], reference[inside], atol=2e-3)
    assert (array[~inside] == 0).all()


def test_a_whole_body_needs_no_more_memory_than_the_grid() -> None:
    volume = np.random.default_rng(0).random((64, 64, 128)).astype(np.float32)
    affine = np.diag([8.0, 8.0, 14.0, 1.0])  # at 0.5 mm it would have four thousand million voxels
    array, _ = to_grid(volume, affine, SHAPE, (0.5, 0.5, 0.5), centre=np.array([100.0, 200.0, 700.0]))
    assert array.shape == SHAPE


def test_smoothing_leaves_the_edge_as_bright_as_what_lies_at_it() -> None:
    volume = np.full((20, 64, 64), 100, np.float32)
    volume[8:12, 28:36, 28:36] = [[0.0, 200.0] * 4] * 8  # contrast, far from the edge
    array, _ = to_grid(volume, np.diag([-4.0, -1.0, -1.0, 1.0]), (10, 16, 16), (8.0, 4.0, 4.0))
    edge = np.ones(array.shape, bool)
    edge[1:-1, 1:-1, 1:-1] = False
    assert np.ptp(array[edge].astype(float)) < 1e-3


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


@pytest.mark.parametrize(
    ("zooms", "reason"),
    [
        ((0.001, 1, 1), r"absurd voxel size of 0\.001 x 1 x 1 mm: 0\.05 to 50 mm are possible"),
        ((1, 1, 60), "absurd voxel size of 1 x 1 x 60 mm"),
        ((0.1, 0.1, 1), "absurd field of view of 4 x 3 x 20 mm: 10 to 2000 mm are possible"),
        ((49.9, 49.9, 50), None),
        ((1, 70 / 30, 0.1), None),  # 2 mm thick
    ],
)
def test_what_no_scanner_takes_is_rejected_with_its_numbers(zooms: tuple[float, ...], reason: str | None) -> None:
    volume = np.random.default_rng(0).random((40, 30, 20)).astype(np.float32)
    affine = np.diag([*zooms, 1.0])
    if reason is None:
        to_grid(volume, affine, (4, 4, 4), (5.0, 5.0, 5.0))
        return
    with pytest.raises(UnusableError, match=reason):
        to_grid(volume, affine, SHAPE, SPACING)


def test_a_field_of_view_beyond_two_metres_is_rejected() -> None:
    volume = np.random.default_rng(0).random((45, 8, 8)).astype(np.float32)
    with pytest.raises(UnusableError, match="absurd field of view of 2025 x 80 x 80 mm"):
        to_grid(volume, np.diag([45.0, 10.0, 10.0, 1.0]), SHAPE, SPACING)


ON_GRID = nib.affines.from_matvec(np.array([[-4.0, 0, 0], [0, 0, -2.0], [0, -2.0, 0]]), [30, 40, 50])


@pytest.mark.parametrize("start", [(0, 0, 0), (3, 5, 7), (-3, 2, -9), (-20, 40, 1)])
def test_a_centre_crops_and_pads_by_whole_voxels_and_leaves_them_as_they_are(start: tuple[int, int, int]) -> None:
    volume = np.random.default_rng(0).random((20, 40, 30)).astype(np.float32) + 3
    point = (ON_GRID @ [*(np.array(start) + (np.array(SHAPE) - 1) / 2), 1])[:3]
    expected = np.full(SHAPE, volume.min())
    for index in np.ndindex(*SHAPE):
        source = np.array(index) + start
        if (source >= 0).all() and (source < volume.shape).all():
            expected[index] = volume[tuple(source)]
    if start[0] == -20:  # nothing is left
        with pytest.raises(UnusableError, match="the middle of the grid lies too far outside the volume"):
            to_grid(volume, ON_GRID, SHAPE, SPACING, centre=point)
        return
    array, record = to_grid(volume, ON_GRID, SHAPE, SPACING, centre=point)
    low, high = np.percentile(expected, (1, 99))
    np.testing.assert_allclose(array, np.clip((expected - low) / (high - low), 0, 1), atol=1e-3)
    np.testing.assert_allclose(np.array(record["stored"]["affine"]) @ [0, 0, 0, 1], ON_GRID @ [*start, 1], atol=1e-4)
    assert [step["step"] for step in record["steps"]] == ["SpatialCrop", "ScaleIntensityRange"]
    assert record["steps"][0]["roi_start"] == list(start)


@pytest.mark.parametrize("codes", ["RAS", "LIP", "PSL"])
def test_what_is_at_the_centre_comes_to_the_middle_of_the_grid(codes: str) -> None:
    volume = np.random.default_rng(0).random((30, 60, 50)).astype(np.float32)
    volume[20:24, 12:16, 30:34] += 50
    image = nib.Nifti1Image(volume, nib.affines.from_matvec(np.diag([3.0, 1.5, 1.5]), [-30, 7, 100]))
    centre = (image.affine @ [21.5, 13.5, 31.5, 1])[:3]
    turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(codes))
    turned = image.as_reoriented(turn)
    array, record = to_grid(turned.get_fdata(dtype=np.float32), turned.affine, SHAPE, SPACING, centre=centre)
    weights = np.where(array > 0.5, array.astype(float), 0)
    middle = [np.average(np.arange(n), weights=weights.sum(tuple({0, 1, 2} - {axis}))) for axis, n in enumerate(SHAPE)]
    assert np.abs(np.array(middle) - (np.array(SHAPE) - 1) / 2).max() <= 0.55
    at = np.array(record["stored"]["affine"]) @ [*((np.array(SHAPE) - 1) / 2), 1]
    assert (np.abs(at[:3] - centre) <= np.array([4, 2, 2]) / 2 + 1e-6).all()  # half a voxel along R, A and S


def bias_phantom() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A body of one tissue with a brighter organ in air, float32 (16, 56, 64); smooth field; tissue; spacing."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (16, 56, 64)), indexing="ij")
    body = z**2 / 2 + (y / 0.9) ** 2 + (x / 0.8) ** 2 < 1
    organ = body & (y**2 + (x - 0.2) ** 2 < 0.1)
    clean = np.where(body, 500, 10) + 400 * organ + np.random.default_rng(0).normal(0, 5, body.shape)
    return clean.astype(np.float32), np.exp(0.5 * x + 0.3 * y - 0.4 * z * x), body & ~organ, np.array([6.0, 3.0, 3.0])


def variation(values: np.ndarray) -> float:
    return float(values.std() / values.mean())


def test_n4_removes_a_smooth_field_and_leaves_a_clean_volume_nearly_alone() -> None:
    clean, field, tissue, zooms = bias_phantom()
    biased = (clean * field).astype(np.float32)
    corrected, step = correct_bias(biased, zooms)
    assert variation(biased[tissue]) > 0.2
    assert variation((corrected / clean)[tissue]) < variation((biased / clean)[tissue]) / 10
    untouched, _ = correct_bias(clean, zooms)
    assert variation((untouched / clean)[tissue]) < 0.01
    assert step["step"] == "N4BiasFieldCorrection"
    assert step["shrink"] == [1, 2, 2]
    assert step["field"][0] < 0.7 < 1.3 < step["field"][1]


def test_n4_gives_the_same_bytes_whatever_the_number_of_threads_and_sets_it_back() -> None:
    clean, field, _, zooms = bias_phantom()
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    results = []
    try:
        for threads in (1, 3):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
            results.append(correct_bias((clean * field).astype(np.float32), zooms)[0].tobytes())
            assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == threads
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    assert results[0] == results[1]


@pytest.mark.parametrize("shape", [(64, 48, 2), (5, 6, 7)])
def test_n4_takes_thin_and_small_volumes(shape: tuple[int, int, int]) -> None:
    volume = np.random.default_rng(0).random(shape).astype(np.float32) + 1
    volume[: shape[0] // 2] += 5
    corrected, _ = correct_bias(volume, np.array([3.0, 3.0, 5.0]))
    assert corrected.shape == shape
    assert np.isfinite(corrected).all()
    with pytest.raises(UnusableError, match="its bias field cannot be estimated"):
        correct_bias(volume[..., :1], np.array([3.0, 3.0, 5.0]))


def test_n4_is_the_first_step_of_the_grid_and_only_on_demand() -> None:
    clean, field, _, zooms = bias_phantom()
    affine = np.diag([*zooms, 1.0])
    biased = (clean * field).astype(np.float32)
    array, record = to_grid(biased, affine, SHAPE, SPACING, n4=True)
    expected, _ = to_grid(correct_bias(biased, zooms)[0], affine, SHAPE, SPACING)
    np.testing.assert_array_equal(array, expected)
    assert record["steps"][0]["step"] == "N4BiasFieldCorrection"
    assert "N4BiasFieldCorrection" not in str(to_grid(biased, affine, SHAPE, SPACING)[1])
