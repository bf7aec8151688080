import base64
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from data_modules import duplicates
from data_modules.duplicates import (
    COLUMNS,
    LOWEST,
    check_together,
    describe_content,
    find_duplicates,
    group_patients,
    read_duplicates,
    write_duplicates,
)
from data_modules.errors import InputError
from data_modules.ingest.volume import to_grid
from data_modules.simulate.mri import simulate_volume
from data_modules.simulate.settings import SimulationSettings
from data_modules.simulate.tvus import simulate_clip

SETTINGS = SimulationSettings(seed=5)
SPACING = (4.0, 2.0, 2.0)
COPIED = 8
Copy = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def volumes() -> list[np.ndarray]:
    return [stored(simulate_volume(SETTINGS, patient, patient % 3 == 0)) for patient in range(80)]


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    return [simulate_clip(SETTINGS, patient, patient % 3 == 0) for patient in range(60)]


def stored(volume: np.ndarray) -> np.ndarray:
    low, high = np.percentile(volume, (1, 99))
    return np.clip((volume.astype(np.float32) - low) / (high - low), 0, 1).astype(np.float16)


def noisy(volume: np.ndarray) -> np.ndarray:
    return stored(volume + np.random.default_rng(0).normal(0, 0.05, volume.shape))


def through_a_bias_field(volume: np.ndarray) -> np.ndarray:
    z, y, x = (np.linspace(-1, 1, n) for n in volume.shape)
    return stored(volume * (1 + 0.1 * z[:, None, None] + 0.15 * y[:, None] - 0.1 * x * x))


def through_another_spacing(volume: np.ndarray) -> np.ndarray:
    finer = ndimage.zoom(volume.astype(np.float32), (4 / 3, 4 / 3, 4 / 3), order=1, grid_mode=True, mode="nearest")
    affine = np.zeros((4, 4))
    affine[0, 0], affine[2, 1], affine[1, 2], affine[3, 3] = -3.0, -1.5, -1.5, 1.0  # to the left, inferior, posterior
    return to_grid(finer, affine, volume.shape, SPACING)[0]  # type: ignore[arg-type]


def shifted(axis: int) -> Copy:
    def shift(array: np.ndarray) -> np.ndarray:
        return np.take(array, np.maximum(np.arange(array.shape[axis]) - 1, 0), axis)

    return shift


def as_motion_jpeg(clip: np.ndarray) -> np.ndarray:
    coded = [cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 40])[1] for frame in clip]
    return np.stack([cv2.imdecode(frame, cv2.IMREAD_GRAYSCALE) for frame in coded])


def brighter(clip: np.ndarray) -> np.ndarray:
    return np.clip(as_motion_jpeg(clip) * 1.1 + 25, 0, 255).astype(np.uint8)


def without_the_first_frames(clip: np.ndarray) -> np.ndarray:
    return clip[np.linspace(2, len(clip) - 1, len(clip)).round().astype(int)]


VOLUME_COPIES: list[Copy] = [
    lambda volume: (0.8 * volume + 0.1).astype(np.float16),
    lambda volume: (volume.astype(np.float32) ** 0.8).astype(np.float16),
    noisy,
    through_a_bias_field,
    through_another_spacing,
    shifted(0),
    shifted(1),
    shifted(2),
]
CLIP_COPIES: list[Copy] = [as_motion_jpeg, brighter, without_the_first_frames, shifted(1), shifted(2)]


def find(arrays: list[np.ndarray], copy: Copy) -> list[tuple[int, int]]:
    """The pairs found when the first cases come again as those of other patients."""
    everything = [*arrays, *(copy(array) for array in arrays[:COPIED])]
    pairs = find_duplicates(
        [describe_content(array) for array in everything], [f"p{n}" for n in range(len(everything))]
    )
    return [(pair.first, pair.second) for pair in pairs]


@pytest.mark.parametrize("copy", VOLUME_COPIES)
def test_copies_of_volumes_are_found_and_nothing_else(volumes: list[np.ndarray], copy: Copy) -> None:
    assert find(volumes, copy) == [(n, len(volumes) + n) for n in range(COPIED)]


@pytest.mark.parametrize("copy", CLIP_COPIES)
def test_copies_of_clips_are_found_and_nothing_else(clips: list[np.ndarray], copy: Copy) -> None:
    assert find(clips, copy) == [(n, len(clips) + n) for n in range(COPIED)]


@pytest.mark.parametrize("n", [2, 4, 7])
def test_among_few_cases_only_plain_copies_are_found(volumes: list[np.ndarray], n: int) -> None:
    few = [*volumes[:n], noisy(volumes[0])]
    pairs = find_duplicates([describe_content(volume) for volume in few], [f"p{i}" for i in range(n + 1)])
    assert [(pair.first, pair.second) for pair in pairs] == [(0, n)]
    assert find_duplicates([], []) == []


def test_cases_of_one_patient_are_no_duplicates(volumes: list[np.ndarray]) -> None:
    descriptors = [describe_content(volume) for volume in [*volumes[:20], *volumes[:20]]]
    patients = [f"p{n}" for n in range(20)]
    assert find_duplicates(descriptors, patients * 2) == []
    assert len(find_duplicates(descriptors, [*patients, *(f"q{n}" for n in range(20))])) == 20


def test_the_descriptor_holds_the_lowest_cosines_of_the_definition() -> None:
    array = np.random.default_rng(0).random((7, 13, 15)).astype(np.float32)
    cosines = [
        np.cos(np.pi * np.outer(np.arange(n), np.arange(size) + 0.5) / size)
        * np.where(np.arange(n) == 0, np.sqrt(1 / size), np.sqrt(2 / size))[:, None]
        for n, size in zip(LOWEST, array.shape, strict=True)
    ]
    expected = np.einsum("dz,hy,wx,zyx->dhw", *cosines, array)
    for index in np.ndindex(LOWEST):
        expected[index] *= np.linalg.norm(index) ** 1.5
    expected = expected.ravel()[1:]
    limit = 2 * expected.std()
    text = describe_content(array)
    found = np.frombuffer(base64.b64decode(text), np.int8).astype(float) * limit / 127
    np.testing.assert_allclose(found, expected.clip(-limit, limit), atol=0.02 * limit)
    assert len(text) < 1000


def test_small_and_constant_arrays_have_descriptors_too() -> None:
    small = np.random.default_rng(0).random((2, 3, 4))
    constant = [np.full((4, 6, 8), value, np.float16) for value in np.linspace(0.1, 1, 12)]
    assert len(describe_content(small)) == len(describe_content(constant[0])) == 960
    assert find_duplicates([describe_content(array) for array in constant], list(map(str, range(12)))) == []


def test_blocks_give_the_pairs_of_a_plain_comparison(
    volumes: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptors = [describe_content(volume) for volume in volumes]
    vectors = np.array([np.frombuffer(base64.b64decode(text), np.int8) for text in descriptors], float)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    centred = vectors - vectors.mean(0)
    similarities = 1 - cdist(centred, centred, "cosine")
    expected = {(i, j): similarities[i, j] for i in range(80) for j in range(i + 1, 80) if similarities[i, j] > 0.2}
    assert len(expected) > 10
    monkeypatch.setattr(duplicates, "BLOCK", 7)
    found = find_duplicates(descriptors, [f"p{n}" for n in range(80)], threshold=0.2)
    assert {(pair.first, pair.second): pair.similarity for pair in found} == pytest.approx(expected)


PAIRS = pd.DataFrame(
    [("mri", "mri-a-1", "a", "mri-c-1", "c", 0.91), ("tvus", "tvus-c-1", "c", "tvus-b-1", "b", 0.8)],
    columns=["modality", "case_a", "patient_a", "case_b", "patient_b", "similarity"],
)


def test_patients_who_share_images_through_others_are_one_group() -> None:
    groups = group_patients(pd.concat([PAIRS, PAIRS[:1].assign(patient_a="x", patient_b="y")]))
    assert groups == {"a": "a", "b": "a", "c": "a", "x": "x", "y": "x"}
    assert group_patients(PAIRS[:0]) == {}


def test_a_pair_in_two_folds_is_refused_by_name() -> None:
    check_together(PAIRS, {"a": 0, "c": 0, "d": 1}, "here")
    with pytest.raises(InputError) as caught:
        check_together(PAIRS, {"a": 0, "b": 1, "c": 0}, "here", {"b": "HOSP1"})
    assert str(caught.value) == (
        "here: cases tvus-c-1 and tvus-b-1 show the same image (similarity 0.80) and are in folds 0 and 1; "
        "give patients c and HOSP1 the same fold"
    )


def test_the_list_of_pairs_comes_back_and_goes_when_there_are_none(tmp_path: Path) -> None:
    write_duplicates(tmp_path, PAIRS)
    pd.testing.assert_frame_equal(read_duplicates(tmp_path), PAIRS, check_dtype=False)
    write_duplicates(tmp_path, PAIRS[:0])
    assert not list(tmp_path.iterdir())
    assert read_duplicates(tmp_path).empty


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a readable CSV .*; remove it and ingest its files again"),
        ("modality,case_a\nmri,a\n", "has no column patient_a; it needs .*: add it, or remove it and ingest"),
        (",".join(COLUMNS) + "\nmri,a,b,c,d,high\n", "row 2 has similarity 'high'; use a number"),
    ],
)
def test_a_list_of_pairs_that_was_edited_wrongly_is_told_in_one_line(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "duplicates.csv").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_duplicates(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "duplicates.csv"))
    assert "\n" not in str(caught.value)
