import gzip
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data_modules.ingest import ingest_mri
from data_modules.ingest.images import Rejection, SourceImage
from data_modules.ingest.layouts.totalsegmentator_mri import find
from data_modules.store import read_record

SPACING = (1.5, 1.5, 3.0)
AFFINE = np.diag([*SPACING, 1.0])
SHAPE = (20, 18, 12)
STRUCTURES = ["spleen", "femur_left", "hip_left", "hip_right", "sacrum", "urinary_bladder", "prostate"]
STRUCTURES += [f"gluteus_{part}_{side}" for part in ("maximus", "medius", "minimus") for side in ("left", "right")]
NO_PELVIS = {"spleen", "femur_left"}
# 616 scans: what their segmentations show (None: which of them there are)
SCANS = [({"hip_left", "sacrum", "gluteus_medius_left"}, STRUCTURES)] * 200
SCANS += [({"gluteus_maximus_left"}, STRUCTURES)] * 16 + [(NO_PELVIS, STRUCTURES)] * 350
SCANS += [(NO_PELVIS, sorted(NO_PELVIS))] * 40 + [(set(), [])] * 10


def packed(values: np.ndarray) -> bytes:
    return gzip.compress(nib.Nifti1Image(values, AFFINE).to_bytes(), 1)


def mask_of(*box: slice) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    if box:
        mask[box] = 1
    return mask


@pytest.fixture
def replica(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """616 scans of mixed body parts, some without masks; or, as the parameter says, every so manieth."""
    scan = packed(np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16))
    empty = packed(mask_of())
    filled = {name: packed(mask_of(slice(0, 4), slice(0, 4), slice(0, 4))) for name in STRUCTURES}
    filled["hip_left"] = packed(mask_of(slice(12, 16), slice(4, 6), slice(2, 4)))
    filled["sacrum"] = packed(mask_of(slice(8, 10), slice(12, 14), slice(6, 10)))
    root = tmp_path / "download" / "TotalsegmentatorMRI_dataset_v200"
    for number, (shown, structures) in enumerate(SCANS[:: getattr(request, "param", 1)], 1):
        folder = root / f"s{number:04d}"
        (folder / "segmentations").mkdir(parents=True)
        (folder / "mri.nii.gz").write_bytes(scan)
        for name in structures:
            content = filled[name] if name in shown else empty
            (folder / "segmentations" / f"{name}.nii.gz").write_bytes(content)
    (root / "meta.csv").write_text("image_id;age;gender\n")
    return tmp_path / "download"


def find_all(source: Path) -> tuple[list[SourceImage], list[Rejection]]:
    files = sorted(file.relative_to(source).as_posix() for file in source.rglob("*") if file.is_file())
    return find(source, files, map)


def test_all_scans_are_accounted_for_and_only_those_known_to_show_no_pelvis_are_left_out(replica: Path) -> None:
    images, rejections = find_all(replica)
    assert (len(images), len(rejections), len(images) + len(rejections)) == (266, 350, 616)
    assert len({image.patient for image in images}) == 266
    assert {(rejection.reason, rejection.defect) for rejection in rejections} == {
        ("no pelvis in the field of view", False)
    }
    assert Counter(image.choice["pelvis"] for image in images) == {
        "gluteus_medius_left, hip_left, sacrum": 200,
        "gluteus_maximus_left": 16,
        "unknown: there are no masks of pelvic structures": 50,
    }
    assert Counter(tuple(Path(mask).name for mask in image.masks) for image in images) == {
        ("hip_left.nii.gz", "sacrum.nii.gz"): 200,  # the muscles reach further
        ("gluteus_maximus_left.nii.gz",): 16,
        (): 50,
    }


@pytest.mark.parametrize("replica", [4], indirect=True)
def test_the_crop_is_laid_around_pelvic_bones_and_organs(replica: Path, tmp_path: Path) -> None:
    out = tmp_path / "cohort"
    summary = ingest_mri(replica, out, layout="totalsegmentator-mri", shape=(6, 4, 6), spacing=(1.5, 3, 1.5), workers=1)
    assert (summary.cases, summary.rejected) == (66, 88)
    middles = Counter[tuple[float, ...]]()
    for file in (out / "mri").glob("*.npy"):
        record = read_record(file)
        assert record is not None
        assert tuple(record["original"]["spacing"]) == SPACING
        middle = np.array(record["stored"]["affine"]) @ [2.5, 1.5, 2.5, 1.0]
        middles[tuple(middle[:3].round(2).tolist())] += 1
    # hip and sacrum span voxels 8 to 15, 4 to 13 and 2 to 9; the muscle 0 to 3; the volume 0 to 19, 17 and 11
    expected = {(11.5, 8.5, 5.5): 50, (1.5, 1.5, 1.5): 4, (9.5, 8.5, 5.5): 12}
    assert middles == {tuple(v * s for v, s in zip(voxel, SPACING, strict=True)): n for voxel, n in expected.items()}


def test_a_damaged_mask_never_costs_the_scan(tmp_path: Path) -> None:
    folder = tmp_path / "s0001" / "segmentations"
    folder.mkdir(parents=True)
    (folder.parent / "mri.nii.gz").write_bytes(packed(mask_of()))
    (folder / "sacrum.nii.gz").write_bytes(packed(mask_of()))
    (folder / "hip_left.nii.gz").write_bytes(packed(mask_of(slice(0, 3)))[:-30])
    (image,), rejections = find_all(tmp_path)
    assert rejections == []
    assert image.masks == ("s0001/segmentations/hip_left.nii.gz",)  # whose damage the record will tell


def test_what_is_missing_or_foreign_is_rejected_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "s0001" / "segmentations").mkdir(parents=True)
    (tmp_path / "s0001" / "segmentations" / "sacrum.nii.gz").write_bytes(packed(mask_of()))
    (tmp_path / "s0001" / "ct.nii.gz").write_bytes(packed(mask_of()))
    images, rejections = find_all(tmp_path)
    assert images == []
    assert [(rejection.source, rejection.reason, rejection.defect) for rejection in rejections] == [
        ("s0001/ct.nii.gz", "not part of the set", True),
        ("s0001", "no mri.nii.gz in the case folder", True),
    ]
