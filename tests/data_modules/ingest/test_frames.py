from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data_modules.ingest.discovery import find_tvus, list_files
from data_modules.ingest.frames import frame_folders, open_pictures, why_no_clip
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


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([f"frame{n}.png" for n in range(8)], ""),
        ([f"P1/2021-07-04/IMG_{n:04d}.JPG" for n in range(995, 1005)], ""),
        ([f"{n}.bmp" for n in range(1, 12)], ""),
        ([f"{'Img' if n % 2 else 'img'}{n}_roi.{'tif' if n % 2 else 'tiff'}" for n in range(9)], ""),
        (
            [f"frame{n}.png" for n in range(7)],
            "7 pictures are taken for stills: a clip needs at least 8, give all its frames",
        ),
        ([f"frame{n}.png" for n in range(0, 16, 2)], "not numbered one by one"),
        ([*(f"frame{n}.png" for n in range(9)), "overview.png"], "not numbered one by one"),
        ([*(f"frame{n}.png" for n in range(9)), "frame3.jpg"], "not numbered one by one"),
        ([f"{name}_{n}.png" for name in "ab" for n in range(8)], "give each clip a folder of its own"),
        ([f"{m}_{n}.png" for m in range(2) for n in range(8)], "give each clip a folder of its own"),
        ([f"{name}.png" for name in "abcdefgh"], "not numbered one by one"),
    ],
)
def test_a_clips_pictures_are_numbered_one_by_one(names: list[str], reason: str) -> None:
    (found,) = frame_folders(sorted(names)).values()
    assert reason in why_no_clip(found)
    assert bool(reason) == bool(why_no_clip(found))


@pytest.mark.parametrize("clip", ["video", "cine", ""])
def test_pictures_beside_a_clip_are_stills(
    tmp_path: Path,
    tissue_frames: np.ndarray,
    write_avi: Callable[..., Path],
    write_cine: Callable[..., Path],
    clip: str,
) -> None:
    write_pictures(tmp_path / "P1", tissue_frames)
    write_pictures(tmp_path / "P1" / "frames", tissue_frames)
    write_pictures(tmp_path / "P2_Roe", tissue_frames[:3])
    names = {"video": "P1/video.avi", "cine": "P1/cine", "": "P1/frame0.png"}
    if clip:
        (write_avi if clip == "video" else write_cine)(tmp_path / names[clip], tissue_frames)
    images, rejections, identities = find_tvus(tmp_path, list_files(tmp_path, tmp_path / "labels.csv")[0], map)
    assert {image.files[0] for image in images} == {"P1/frames/frame0.png", names[clip]}
    stills = [("P1/frame0.png and 19 more files", False)] if clip else []
    assert [(rejection.source, rejection.defect) for rejection in rejections] == [
        *stills,
        ("P2_Roe/frame0.png and 2 more files", True),
    ]
    assert {"P1", "P2"} <= identities.keys()  # to be concealed where they are listed


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


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_a_picture_of_several_pages_is_rejected(tmp_path: Path, tissue_frames: np.ndarray, suffix: str) -> None:
    """As the frame of a clip its first page would stand for all of them."""
    files = write_pictures(tmp_path, tissue_frames, suffix)
    pages = [Image.fromarray(frame) for frame in tissue_frames[:3]]
    pages[0].save(files[4], save_all=True, append_images=pages[1:])
    with pytest.raises(UnusableError, match="a picture of several pages: save each frame"):
        read_clip(files, FULL)


def test_only_the_frames_asked_for_are_decoded(tmp_path: Path, tissue_frames: np.ndarray) -> None:
    files = write_pictures(tmp_path, tissue_frames)
    recording = open_pictures(files)
    files[4].unlink()
    found = [frame for _, frame in recording.frames([3, 7])]
    np.testing.assert_array_equal(found, tissue_frames[[3, 7]])
