"""MR whose low values are bright, against the same anatomy as most scanners store it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_modules.cohort import read_manifest
from data_modules.ingest import ingest_mri
from data_modules.ingest.cases import plan_cases
from data_modules.ingest.dicom import read_series
from data_modules.ingest.discovery import find_mri, list_files
from data_modules.ingest.images import Rejection, SourceImage
from data_modules.ingest.matching import MatchedImage
from data_modules.ingest.pseudonyms import open_key
from data_modules.ingest.rules import read_rules

WriteSeries = Callable[..., list[Path]]
INVERTED = {"PhotometricInterpretation": "MONOCHROME1"}


def find(source: Path) -> tuple[list[SourceImage], list[Rejection]]:
    files, _ = list_files(source, source / "labels.csv")
    images, rejections, _ = find_mri(source, files, map, read_rules())
    return images, rejections


@pytest.mark.parametrize("n4", [False, True])
@pytest.mark.parametrize("white", [2000, 4095])
def test_a_case_is_stored_as_that_of_the_same_anatomy_whose_high_values_are_bright(
    tmp_path: Path, write_series: WriteSeries, noise_volume: np.ndarray, white: int, n4: bool
) -> None:
    """Whether the scanner took the values from the largest there was, or from the largest that the bits hold."""
    rescale = {"RescaleSlope": 2.0, "RescaleIntercept": -5.0}
    bits = {"BitsStored": 12, "HighBit": 11}
    write_series(tmp_path / "source" / "a", noise_volume, patient="a", **bits)
    write_series(tmp_path / "source" / "b", white - noise_volume, patient="b", **INVERTED, **bits, **rescale)
    summary = ingest_mri(tmp_path / "source", tmp_path / "cohort", shape=(8, 16, 16), n4=n4, workers=1)
    assert (summary.cases, summary.rejected) == (2, 0)
    files = [tmp_path / "cohort" / path for path in read_manifest(tmp_path / "cohort", "mri")["path"]]
    one, other = (np.load(file).astype(np.float32) for file in files)
    np.testing.assert_allclose(one, other, atol=1e-3)
    steps = [json.loads(file.with_suffix(".json").read_text())["steps"] for file in files]
    plain, turned = sorted(steps, key=len)
    assert turned[0] == {"step": "turn around", "from": "MONOCHROME1"}
    assert [step["step"] for step in turned[1:]] == [step["step"] for step in plain]


@pytest.mark.parametrize(("low", "kind"), [(0, np.uint16), (-1000, np.int16)])
def test_values_count_down_from_the_highest_as_rescaled(
    tmp_path: Path, write_series: WriteSeries, noise_volume: np.ndarray, low: int, kind: type
) -> None:
    stored = (noise_volume.astype(int) + low).astype(kind)
    signed = {"PixelRepresentation": int(low < 0)}
    slopes = tuple(1.0 + 0.1 * index for index in range(len(stored)))  # another for every slice
    write_series(tmp_path / "s", stored, RescaleSlope=slopes, RescaleIntercept=3.0, **INVERTED, **signed)
    (image,), _ = find(tmp_path)
    volume, _ = read_series(tmp_path, image.files, image.frames)
    rescaled = stored * np.array(slopes)[:, None, None] + 3.0
    np.testing.assert_allclose(volume, rescaled.max() - rescaled, rtol=1e-5, atol=1e-3)


def test_a_series_of_both_kinds_of_slices_is_rejected(
    tmp_path: Path, write_series: WriteSeries, noise_volume: np.ndarray
) -> None:
    kinds = tuple(f"MONOCHROME{1 + index % 2}" for index in range(len(noise_volume)))
    write_series(tmp_path / "s", noise_volume, PhotometricInterpretation=kinds)
    images, (rejection,) = find(tmp_path)
    assert not images
    assert rejection.reason == "low values are bright in some of its slices (MONOCHROME1) and dark in others"


def test_only_inverted_cases_are_made_anew_in_a_cohort_of_before_they_were_turned(
    tmp_path: Path, write_series: WriteSeries, noise_volume: np.ndarray
) -> None:
    write_series(tmp_path / "source" / "a", noise_volume, patient="a")
    write_series(tmp_path / "source" / "b", noise_volume, patient="b", **INVERTED)
    images, _ = find(tmp_path / "source")
    prints = []
    with open_key(tmp_path / "cohort.key") as pseudonyms:
        for found in (images, [replace(image, inverted=False) for image in images]):
            matches = [MatchedImage(image, image.patient) for image in found]
            cases = plan_cases("mri", tmp_path / "source", tmp_path, matches, {}, pseudonyms)
            prints.append({case.match.patient: case.record["fingerprint"] for case in cases})
    now, before = prints
    assert now["a"] == before["a"]
    assert now["b"] != before["b"]
