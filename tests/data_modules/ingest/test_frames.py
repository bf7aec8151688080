from pathlib import Path

import cv2
import numpy as np
import pytest

from data_modules.ingest.frames import frame_folders, open_pictures
from data_modules.ingest.images import UnusableError
from data_modules.ingest.video import read_clip

FULL = (20, 60, 80)


def write_pictures(folder: Path, frames: np.ndarray, suffix: str = ".png") -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"frame{index}{suffix}" for index in range(len(frames))]
    for file, frame in zip(files, frames, strict=True):
        assert cv2.imwrite(str(file), frame)
    return files


def test_folders_of_pictures_are_found_in_natural_order() -> None:
    files = [
        *("P1/frame10.png", "P1/frame2.PNG", "P1/frame1.png", "P1/report.pdf", "P1/deep/a.jpg"),
        *("P2/IMG_0010.jpg", "P2/IMG_0009.jpg", "P2/img_0011.jpeg", "P3/one.png", "labels.csv", "a2.tif", "a1.bmp"),
    ]
    assert frame_folders(files) == {
        "": ["a1.bmp", "a2.tif"],
        "P1": ["P1/frame1.png", "P1/frame2.PNG", "P1/frame10.png"],
        "P2": ["P2/IMG_0009.jpg", "P2/IMG_0010.jpg", "P2/img_0011.jpeg"],
    }


def test_several_numbers_in_a_name_count_one_after_the_other() -> None:
    names = ["s2_10", "s10_1", "s2_9", "2021-07-04", "x", "s2_09"]
    (found,) = frame_folders([f"{name}.png" for name in names]).values()
    assert [Path(name).stem for name in found] == ["2021-07-04", "s2_09", "s2_9", "s2_10", "s10_1", "x"]


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".jpg"])
def test_pictures_are_the_frames_in_the_given_order(tmp_path: Path, tissue_frames: np.ndarray, suffix: str) -> None:
    files = write_pictures(tmp_path, tissue_frames, suffix)
    clip, record = read_clip(files, FULL)
    assert np.abs(clip.astype(int) - tissue_frames).mean() <= (2 if suffix == ".jpg" else 0)
    np.testing.assert_array_equal(read_clip(files[::-1], FULL)[0], clip[::-1])
    assert record["source"] == {"format": f"folder of {suffix[1:].upper()}"}
    assert record["original"] == {"size": [60, 80], "frames": 20, "duration_s": 0.95, "frame_times": "assumed"}


def test_a_rate_of_pictures_is_assumed_and_said_so(tmp_path: Path, tissue_frames: np.ndarray) -> None:
    files = write_pictures(tmp_path, tissue_frames)
    clip, record = read_clip(files, (8, 60, 80), frame_rate=10.0)
    np.testing.assert_array_equal(clip, tissue_frames[2:18:2])
    assert record["warnings"] == ["no frame rate is stated: 20 frames a second are assumed"]
    assert "warnings" not in read_clip(files, (8, 60, 80))[1]


def test_colours_become_luma(tmp_path: Path, tissue_frames: np.ndarray) -> None:
    rgb = np.stack([tissue_frames, np.roll(tissue_frames, 9, 1), np.roll(tissue_frames, 9, 2)], -1)
    clip, _ = read_clip(write_pictures(tmp_path, rgb[..., ::-1]), FULL)  # OpenCV writes BGR
    assert np.abs(clip - rgb @ [0.299, 0.587, 0.114]).max() <= 1


@pytest.mark.parametrize(("bits", "suffix"), [(16, ".png"), (12, ".png"), (10, ".tif")])
def test_deep_pictures_keep_the_bits_they_use(
    tmp_path: Path, tissue_frames: np.ndarray, bits: int, suffix: str
) -> None:
    deep = tissue_frames.astype(np.uint16) << (bits - 8)
    deep[3, 0, 0] = 2**bits - 1
    clip, record = read_clip(write_pictures(tmp_path, deep, suffix), FULL)
    np.testing.assert_array_equal(clip[:3], tissue_frames[:3])
    assert record["steps"][0] == {"step": "scale down to 8 bits", "from_bits": bits}


def test_what_is_no_clip_is_rejected_in_words(
    tmp_path: Path, tissue_frames: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    files = write_pictures(tmp_path / "whole", tissue_frames, ".jpg")
    cases: list[tuple[list[Path], str]] = [(files[:1], "a single frame"), ([files[0]] * 5, "a still image")]
    larger = write_pictures(tmp_path / "larger", np.zeros((1, 61, 80), np.uint8))
    cases.append(([*files, *larger], "differ in size"))
    for name, content, reason in [
        ("cut.jpg", files[5].read_bytes()[:800], "a picture cannot be decoded"),
        ("text.png", b"no picture", "a picture cannot be decoded"),
        ("empty.png", b"", "an empty file"),
        ("huge.bmp", b"BM" + bytes(16) + b"(\0\0\0" + 2 * (60_000).to_bytes(4, "little"), "cannot be decoded|60000"),
    ]:
        (tmp_path / name).write_bytes(content)
        cases.append(([*files[:5], tmp_path / name], reason))
    for pictures, reason in cases:
        with pytest.raises(UnusableError, match=reason):
            read_clip(pictures, (16, 32, 32))
    assert capfd.readouterr() == ("", "")


def test_only_the_frames_asked_for_are_decoded(tmp_path: Path, tissue_frames: np.ndarray) -> None:
    files = write_pictures(tmp_path, tissue_frames)
    recording = open_pictures(files)
    files[4].unlink()
    found = [frame for _, frame in recording.frames([3, 7])]
    np.testing.assert_array_equal(found, tissue_frames[[3, 7]])
