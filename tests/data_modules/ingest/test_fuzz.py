"""Hundreds of damaged files: each becomes a case or is named with a reason, and none stops or harms the rest."""

import gzip
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless, RLELossless

from data_modules.cohort import read_manifest
from data_modules.ingest import IngestSummary, ingest_mri, ingest_tvus

N = 60  # mutants a kind of file
SHAPE = (8, 16, 16)
WRONG = {
    "Rows": [0, 1, 65535],
    "Columns": [0, 3, 65535],
    "NumberOfFrames": ["0", "-3", "2000000000", "3"],
    "BitsAllocated": [0, 1, 7, 8, 12, 32, 64],
    "BitsStored": [0, 1, 77],
    "SamplesPerPixel": [0, 2, 3, 255],
    "PhotometricInterpretation": ["", "RGB", "YBR_FULL_422", "PALETTE COLOR", "HSV"],
    "PixelSpacing": [["0", "0"], ["-1", "1"], ["1e9", "1e9"], ["1e-9", "1e-9"], ["1"]],
    "ImageOrientationPatient": [["0"] * 6, ["1", "0", "0", "1", "0", "0"], ["2", "0", "0", "0", "2", "0"], ["1"]],
    "ImagePositionPatient": [["1e30", "0", "0"], ["0", "0"], ["0", "0", "0"]],
    "RescaleSlope": ["0", "1e300", "-1"],
    "FrameTime": ["0", "-40", "1e300"],
}


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Flips, cuts, blanks, doubles or inserts bytes, more often near the start, where the header is."""
    data = bytearray(content)
    start = int(rng.integers(len(data)) if rng.uniform() < 0.4 else rng.integers(min(600, len(data))))
    length = int(rng.integers(1, 64))
    kind = rng.integers(6)
    if kind == 0:
        for position in rng.integers(0, len(data), rng.integers(1, 40)):
            data[position] = rng.integers(256)
    elif kind == 1:
        del data[start:]
    elif kind == 2:
        data[start : start + length] = bytes(length)
    elif kind == 3:
        data[start:start] = data[start : start + length]
    elif kind == 4:
        data[start:start] = rng.bytes(length)
    else:
        data[start : start + 4] = struct.pack("<I", int(rng.integers(2**32)))
    return bytes(data)


def spoil(file: Path, rng: np.random.Generator) -> None:
    """Damages a DICOM file, by its bytes or by an attribute that is well formed and wrong."""
    if rng.uniform() < 0.5:
        file.write_bytes(mutate(file.read_bytes(), rng))
        return
    dataset = pydicom.dcmread(file)
    keyword = str(rng.choice([name for name in WRONG if name in dataset or name == "NumberOfFrames"]))
    setattr(dataset, keyword, WRONG[keyword][rng.integers(len(WRONG[keyword]))])
    dataset.save_as(file)


def check(cohort: Path, modality: str, summary: IngestSummary, printed: str) -> None:
    """What is there is whole, and what is not there has been named."""
    manifest = read_manifest(cohort, modality)
    assert len(manifest) == summary.cases
    for path in manifest["path"]:
        array = np.load(cohort / path)
        assert array.shape == SHAPE
        assert np.isfinite(array).all()
        assert array.min() < array.max()
        assert json.loads((cohort / path).with_suffix(".json").read_text())["case_id"] in path
    assert len(list((cohort / modality).iterdir())) == 2 * summary.cases  # no half-written case
    assert not list(cohort.glob(".*"))
    rejected = pd.read_csv(cohort / "rejected.csv", keep_default_na=False)
    assert rejected["reason"].ne("").all()
    assert "Traceback" not in printed


@pytest.mark.parametrize("seed", [0, 1])
def test_mutated_volumes(
    tmp_path: Path, write_series: Callable[..., list[Path]], capfd: pytest.CaptureFixture[str], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    source, out = tmp_path / "source", tmp_path / "cohort"
    for number in range(N):
        volume = rng.integers(0, 2000, (8, 32, 32)).astype(np.uint16)
        compress = (None, RLELossless, JPEG2000Lossless)[number % 3]
        files = write_series(source / f"D{number}", volume, patient=f"D{number}", compress=compress)
        spoil(files[rng.integers(len(files))], rng)
    for number in range(2 * N):
        image = nib.Nifti1Image(rng.integers(0, 2000, (16, 16, 8)).astype(np.int16), np.diag([2.0, 2.0, 4.0, 1.0]))
        content = image.to_bytes()
        packed = (gzip.compress(mutate(content, rng)), mutate(gzip.compress(content), rng), mutate(content, rng))
        (source / f"N{number}_t2.nii.gz").write_bytes(packed[number % 3])
    good = rng.integers(0, 2000, (8, 32, 32)).astype(np.uint16)
    write_series(source / "good", good, patient="good")
    (source / "labels.csv").write_text("patient_id,label\ngood,1\n")
    summary = ingest_mri(source, out, shape=SHAPE, time_limit=60, memory_limit=3)
    check(out, "mri", summary, "".join(capfd.readouterr()))
    assert summary.obliterated == 1  # the good one
    assert summary.defects > N  # the damage was real


@pytest.mark.parametrize("seed", [0, 1])
def test_mutated_clips(
    tmp_path: Path,
    write_cine: Callable[..., Path],
    write_avi: Callable[..., Path],
    moving_frames: np.ndarray,
    capfd: pytest.CaptureFixture[str],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    source, out = tmp_path / "source", tmp_path / "cohort"
    for number in range(N):
        compress = (None, RLELossless)[number % 2]
        spoil(write_cine(source / f"C{number}.dcm", moving_frames[:8], patient=f"C{number}", compress=compress), rng)
        file = write_avi(source / f"A{number}.avi", moving_frames[:8])
        file.write_bytes(mutate(file.read_bytes(), rng))
    write_cine(source / "good.dcm", moving_frames, patient="good")
    (source / "labels.csv").write_text("patient_id,label\ngood,1\n")
    summary = ingest_tvus(source, out, shape=SHAPE, time_limit=60, memory_limit=3)
    check(out, "tvus", summary, "".join(capfd.readouterr()))
    assert summary.obliterated == 1
    assert summary.defects > N // 4


def bombs(folder: Path) -> None:
    """Small files that would unpack to gigabytes."""
    header = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).header
    for name, shape in (("honest", (8192, 8192, 512)), ("liar", (16, 16, 8))):
        header.set_data_shape(shape)
        packer = zlib.compressobj(9, wbits=31)
        with (folder / f"{name}_t2.nii.gz").open("wb") as handle:
            handle.write(packer.compress(header.binaryblock + bytes(4)))
            for _ in range(1024):
                handle.write(packer.compress(bytes(2**20)))
            handle.write(packer.flush())


def test_bombs_bad_labels_and_strange_names_harm_nothing(
    tmp_path: Path, write_series: Callable[..., list[Path]], noise_volume: np.ndarray
) -> None:
    source, out = tmp_path / "source", tmp_path / "cohort"
    write_series(source / "good", noise_volume, patient="good")
    write_series(source / "other", noise_volume[:, ::-1].copy(), patient="other")
    bombs(source)
    (source / "line\nbreak.nii").write_bytes(b"x")
    (source / "\udce9.nii").write_bytes(b"x")
    (source / "loop").symlink_to(source)
    (source / "labels.csv").write_bytes(
        "\ufeffpatient_id;label;path\r\ngood;1;\r\nother;perhaps;\r\ngood;1;../../etc/passwd\r\n".encode()
    )
    summary = ingest_mri(source, out, shape=SHAPE, memory_limit=1.5)
    assert (summary.cases, summary.obliterated) == (2, 1)
    rejected = pd.read_csv(out / "rejected.csv").set_index("source")["reason"]
    assert len(rejected) == summary.defects == 7
    assert rejected["labels.csv row 4: ../../etc/passwd"] == "it names a path outside the source folder"
    assert rejected["labels.csv row 3"].startswith("its label is no label")
    assert rejected["loop"] == "a link that leads back to a folder above it"
