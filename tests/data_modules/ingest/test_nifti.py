import gzip
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from data_modules.ingest.images import UnusableError
from data_modules.ingest.nifti import find_nifti, read_grid, read_nifti

AFFINE = nib.affines.from_matvec(np.array([[0, 0.3, -4], [2, 0, 0.2], [0, -2, 0.1]]), [10, -20, 30])


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3000, (9, 8, 7)).astype(np.int16)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_values_and_affine_come_back(tmp_path: Path, volume: np.ndarray, kind: type, name: str) -> None:
    nib.save(kind(volume, AFFINE), tmp_path / name)
    values, affine, _ = read_nifti(tmp_path / name)
    np.testing.assert_array_equal(values, volume)
    np.testing.assert_allclose(affine, AFFINE, atol=1e-5)


def test_geometry_equals_simpleitk(tmp_path: Path, volume: np.ndarray) -> None:
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]  # SimpleITK wants orthogonal axes
    nib.save(nib.Nifti1Image(volume, nib.affines.from_matvec(turn * [1.5, 2.0, 4.0], [1, 2, 3])), tmp_path / "a.nii.gz")
    values, affine, _ = read_nifti(tmp_path / "a.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    np.testing.assert_array_equal(values, sitk.GetArrayFromImage(image).T)
    for index in [(0, 0, 0), (8, 0, 3), (2, 7, 6)]:
        point = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose((affine @ [*index, 1])[:3], np.array(point) * [-1, -1, 1], atol=1e-4)


def test_a_gz_that_is_not_compressed_and_a_trailing_axis_are_read(tmp_path: Path, volume: np.ndarray) -> None:
    (tmp_path / "a.nii.gz").write_bytes(nib.Nifti1Image(volume[..., None], AFFINE).to_bytes())
    values, _, _ = read_nifti(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(values, volume)


@pytest.mark.parametrize(
    ("code", "scale"), [(1, 1000), (2, 1), (3, 0.001), (0, 1), (10, 1), (9, 1000), (7, 1), (255, 1)]
)
def test_units_become_millimetres_and_a_damaged_unit_is_no_obstacle(
    tmp_path: Path, volume: np.ndarray, code: int, scale: float
) -> None:
    image = nib.Nifti1Image(volume, np.diag([4.0, 2.0, 2.0, 1]))
    image.header["xyzt_units"] = code
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(read_nifti(tmp_path / "a.nii")[1], np.diag([4.0 * scale, 2 * scale, 2 * scale, 1]))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.zeros((5, 5, 5, 3), np.int16), "it holds several volumes"),
        (np.zeros((5, 5), np.int16), "not a volume"),
        (np.full((5, 5, 5), 7, np.int16), "all voxels have the same value"),
        (np.where(np.arange(125).reshape(5, 5, 5) == 3, np.nan, 1).astype(np.float32), "1 voxels are not finite"),
        (np.where(np.arange(125).reshape(5, 5, 5) == 3, np.inf, 1).astype(np.float32), "1 voxels are not finite"),
        (np.arange(125).reshape(5, 5, 5).astype(np.uint8) % 4, "only 4 distinct values: a segmentation"),
        (np.zeros((5, 5, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "a colour or complex image"),
    ],
)
def test_what_is_no_image_is_rejected_with_its_reason(tmp_path: Path, values: np.ndarray, reason: str) -> None:
    nib.save(nib.Nifti1Image(values, AFFINE), tmp_path / "a.nii.gz")
    with pytest.raises(UnusableError, match=reason):
        read_nifti(tmp_path / "a.nii.gz")


def test_empty_foreign_and_unoriented_files_are_rejected_with_their_reasons(tmp_path: Path, volume: np.ndarray) -> None:
    file = tmp_path / "a.nii"
    file.write_bytes(b"")
    with pytest.raises(UnusableError, match="the file is empty"):
        read_nifti(file)
    file.write_bytes(b"no volume at all" * 100)
    with pytest.raises(UnusableError, match="not a NIfTI file"):
        read_nifti(file)
    image = nib.Nifti1Image(volume, None)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nib.save(image, file)
    with pytest.raises(UnusableError, match="no orientation"):
        read_nifti(file)


@pytest.mark.parametrize("kind", ["<i2", ">i2", "<f4", ">f8", "u1"])
def test_scaled_values_equal_nibabels(tmp_path: Path, kind: str) -> None:
    values = np.random.default_rng(0).integers(0, 200, (9, 8, 7)).astype(kind)
    image = nib.Nifti1Image(values, AFFINE, nib.Nifti1Header(endianness=">" if kind.startswith(">") else "<"))
    image.set_data_dtype(values.dtype)
    image.header.set_slope_inter(0.37, -5)
    content = bytearray(image.to_bytes())
    header = nib.Nifti1Header(bytes(content[:348]))
    header["scl_slope"], header["scl_inter"] = 0.37, -5
    content[:348] = header.binaryblock
    (tmp_path / "a.nii").write_bytes(content)
    reference = nib.load(tmp_path / "a.nii")
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii")[0], reference.get_fdata(dtype=np.float32))
    assert reference.dataobj.slope == pytest.approx(0.37)


def test_a_pair_of_header_and_image_is_one_volume(tmp_path: Path, volume: np.ndarray) -> None:
    nib.save(nib.Nifti1Pair(volume, AFFINE), tmp_path / "a.img")
    (tmp_path / "a.nii").touch()
    (tmp_path / "disk.img").touch()
    names = [file.name for file in tmp_path.iterdir()]
    assert find_nifti(names) == (["a.img", "a.nii"], {"a.img", "a.hdr", "a.nii"})
    values, affine, _ = read_nifti(tmp_path / "a.img")
    np.testing.assert_array_equal(values, volume)
    np.testing.assert_allclose(affine, AFFINE, atol=1e-5)


def test_given_zooms_replace_the_headers_and_keep_its_directions(tmp_path: Path, volume: np.ndarray) -> None:
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    nib.save(nib.Nifti1Image(volume, nib.affines.from_matvec(turn, [1, 2, 3])), tmp_path / "a.nii.gz")
    _, affine, origin = read_nifti(tmp_path / "a.nii.gz", zooms=(0.5, 0.6, 6.0))
    np.testing.assert_allclose(affine, nib.affines.from_matvec(turn * [0.5, 0.6, 6.0], [1, 2, 3]), atol=1e-6)
    assert origin["header_spacing"] == [1, 1, 1]


def test_the_grid_is_that_of_the_volume(tmp_path: Path, volume: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(volume, AFFINE), tmp_path / "a.nii.gz")
    shape, affine = read_grid(tmp_path / "a.nii.gz")
    assert shape == volume.shape
    np.testing.assert_allclose(affine, AFFINE, atol=1e-5)


def test_truncated_and_damaged_files_are_rejected_with_reasons_of_their_own(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 30000, (40, 40, 40)).astype(np.int16)
    whole = nib.Nifti1Image(noise, AFFINE).to_bytes()
    packed = bytearray(gzip.compress(whole, mtime=0))
    file = tmp_path / "a.nii.gz"
    for length in (20, len(packed) // 2, len(packed) - 4):  # in the header, the voxels, the checksum
        file.write_bytes(packed[:length])
        with pytest.raises(UnusableError, match=r"^the gzip stream ends early$"):
            read_nifti(file)
    for position in (len(packed) // 2, len(packed) - 6):  # a voxel, the checksum
        damaged = packed.copy()
        damaged[position] ^= 0xFF
        file.write_bytes(damaged)
        with pytest.raises(UnusableError, match=r"^the gzip stream is damaged"):
            read_nifti(file)
    file.write_bytes(whole[:-10])
    with pytest.raises(UnusableError, match=r"^the file ends early: 127990 of 128000 bytes$"):
        read_nifti(file)


def header_of(shape: tuple[int, ...], offset: float = 352) -> bytes:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape)
    header["vox_offset"], header["sform_code"], header["pixdim"][1:4] = offset, 1, 1
    return header.binaryblock + bytes(4)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (header_of((2000, 2000, 2000)), "its header states 2000 x 2000 x 2000 voxels, more than 536870912"),
        (header_of((30000, 30000, 30000)), "more than 536870912"),
        (header_of((8, 8, 8), offset=1e9), "a damaged NIfTI header: its voxels start at byte 1000000000"),
        (header_of((8, 8, 8), offset=np.nan), "a damaged NIfTI header"),
        (header_of((8, 8, 8)), "it goes on after the 1024 bytes of voxels that its header states"),
        (header_of((8, -8, 8)), "not a volume"),
        (header_of((8, 8, 8))[:70] + b"\x39\x30" + header_of((8, 8, 8))[72:], "a damaged NIfTI header"),
    ],
)
def test_a_file_that_unpacks_to_far_more_than_it_states_is_rejected_within_little_memory(
    tmp_path: Path, header: bytes, reason: str
) -> None:
    file = tmp_path / "bomb.nii.gz"
    with gzip.open(file, "wb", compresslevel=1) as stream:
        stream.write(header)
        for _ in range(200):
            stream.write(bytes(2**20))
    tracemalloc.start()
    try:
        with pytest.raises(UnusableError, match=reason):
            read_nifti(file)
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()
