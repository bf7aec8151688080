"""The scanners' own files that pydicom brings along, into a cohort, against SimpleITK's reading of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813

from data_modules.cohort import read_manifest
from data_modules.errors import InputError
from data_modules.ingest import ingest_mri, ingest_tvus
from data_modules.ingest.dicom import read_series, scan_files
from data_modules.ingest.rules import read_rules
from data_modules.ingest.series import find_volumes

ANY_NUMBER = "min_slices: 1\nexclude: []\n"


def by_simpleitk(files: list[Path]) -> tuple[np.ndarray, list[float], list[float]]:
    """Voxels (slices, rows, columns), their size in that order in mm, and the LPS position of the first voxel."""
    image = sitk.ReadImage([str(file) for file in files])
    return sitk.GetArrayFromImage(image), list(image.GetSpacing())[::-1], list(image.GetOrigin())


@pytest.mark.parametrize(
    ("name", "series", "slices"),
    [
        ("MR_small.dcm", 1, 1),
        ("MR_small_RLE.dcm", 1, 1),
        ("MR_small_bigendian.dcm", 1, 1),
        ("MR_small_expb.dcm", 1, 1),
        ("MR_small_implicit.dcm", 1, 1),
        ("MR_small_jp2klossless.dcm", 1, 1),
        ("MR_small_jpeg_ls_lossless.dcm", 1, 1),
        ("MR_small_padded.dcm", 1, 1),
        ("examples_overlay.dcm", 1, 1),
        ("dicomdirtests/98892003/MR1", 3, 1),  # localisers, each slice at an angle of its own
        ("dicomdirtests/98892003/MR2", 7, 1),
    ],
)
def test_real_mr_enters_a_cohort_with_simpleitks_geometry_and_pixels(
    bundled: Callable[[str], Path], tmp_path: Path, name: str, series: int, slices: int
) -> None:
    source, rules = tmp_path / "source", tmp_path / "rules.yaml"
    source.mkdir()
    found = bundled(name)
    for file in [found] if found.is_file() else found.iterdir():
        shutil.copy(file, source)
    rules.write_text(ANY_NUMBER)
    frames, _ = scan_files(source, sorted(file.name for file in source.iterdir()), map)
    images, rejections = find_volumes(frames, read_rules(rules))
    assert not rejections
    assert len(images) == series
    assert max(len(image.files) for image in images) == slices
    for image in images:
        voxels, spacing, origin = by_simpleitk([source / file for file in image.files])
        volume, _ = read_series(source, image.files, image.frames)
        np.testing.assert_allclose(volume, voxels)
        affine = np.array(image.affine)
        if len(image.files) == 1:  # SimpleITK has no spacing between the slices then
            spacing[0] = float(pydicom.dcmread(source / image.files[0]).SliceThickness)
        np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), spacing, rtol=1e-4)
        np.testing.assert_allclose(affine[:3, 3] * [-1, -1, 1], origin, atol=1e-3)
    summary = ingest_mri(source, tmp_path / "cohort", shape=(4, 32, 32), series_rules=rules)
    assert summary.defects == 0
    case = read_manifest(tmp_path / "cohort", "mri")["path"][0]
    record = json.loads((tmp_path / "cohort" / case).with_suffix(".json").read_text())
    chosen = max(images, key=lambda image: image.preference)
    assert record["original"]["shape"] == [len(chosen.files), *voxels.shape[1:]]
    assert record["original"]["orientation"] == "".join(nib.aff2axcodes(np.array(chosen.affine)))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("MR_truncated.dcm", "a slice cannot be decoded"),
        ("dicomdirtests/98892003/MR700/4467", "absurd field of view of 1.2 x 6.25 x 6.25 mm"),  # 16 pixels cut out
    ],
)
def test_a_real_file_that_is_no_image_of_a_body_is_named_with_its_reason(
    bundled: Callable[[str], Path], tmp_path: Path, name: str, reason: str
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "rules.yaml").write_text(ANY_NUMBER)
    shutil.copy(bundled(name), tmp_path / "source")
    with pytest.raises(InputError, match="no usable mri case among 1 files"):
        ingest_mri(tmp_path / "source", tmp_path / "cohort", series_rules=tmp_path / "rules.yaml")
    assert reason in pd.read_csv(tmp_path / "cohort" / "rejected.csv")["reason"][0]


def test_of_all_real_ultrasound_the_cine_is_a_case_and_single_frames_are_named(
    bundled: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "us").mkdir()
    stills = ("ExplVR_BigEnd", "examples_jpeg2k", "examples_palette", "examples_rgb_color")
    for name in (*stills, "examples_ybr_color"):
        shutil.copy(bundled(f"{name}.dcm"), tmp_path / "us")
    summary = ingest_tvus(tmp_path / "us", tmp_path / "cohort", shape=(8, 64, 64))
    assert (summary.cases, summary.rejected, summary.defects) == (1, 4, 0)
    rejected = pd.read_csv(tmp_path / "cohort" / "rejected.csv")
    assert set(rejected["reason"]) == {"a single frame, not a clip"}
    case = read_manifest(tmp_path / "cohort", "tvus")["path"][0]
    record = json.loads((tmp_path / "cohort" / case).with_suffix(".json").read_text())
    assert record["original"]["frames"] == 30
    assert record["source"]["manufacturer"] == "SonoSite, Inc."
