from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data_modules.ingest.burned_in import WARNING, find_steady_text, find_text
from data_modules.ingest.cine import open_cine
from data_modules.ingest.video import read_clip
from data_modules.simulate.settings import SimulationSettings
from data_modules.simulate.tvus import simulate_clip

NAMES = ("ROE JANE", "Mueller^Anna 19801231", "Smith, Mary", "DOE", "ID 1234567", "Nguyen Thi")
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_PLAIN, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX)


def write_name(picture: np.ndarray, height: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draws a name with capitals of that height into a picture (H, W); returns the row and column of its middle."""
    name, font = NAMES[rng.integers(len(NAMES))], FONTS[rng.integers(len(FONTS))]
    scale = cv2.getFontScaleFromHeight(font, height, 1)
    (width, tall), _ = cv2.getTextSize(name, font, scale, 1)
    x = int(rng.integers(5, max(6, picture.shape[1] - width - 5)))
    y = int(rng.integers(tall + 20, picture.shape[0] - 20))
    cv2.putText(picture, name, (x, y), font, scale, int(rng.integers(160, 256)), 1, cv2.LINE_AA)
    return y - tall // 2, x + width // 2


def sweeps(shape: tuple[int, int, int], n: int) -> list[np.ndarray]:
    return [simulate_clip(SimulationSettings(seed=3, clip_shape=shape), index, index % 2) for index in range(n)]


@pytest.mark.parametrize("height", [12, 16, 24, 40])
def test_names_on_black_are_found_where_they_stand(height: int) -> None:
    rng = np.random.default_rng(height)
    for _ in range(30):
        picture = np.zeros((480, 640), np.uint8)
        row, column = write_name(picture, height, rng)
        picture = cv2.imdecode(cv2.imencode(".jpg", picture)[1], cv2.IMREAD_GRAYSCALE)
        boxes = find_text(picture)
        assert any(
            top <= row <= bottom and left - height <= column <= right + height for top, bottom, left, right in boxes
        )


@pytest.mark.parametrize(("height", "least"), [(8, 0.15), (12, 0.7), (16, 0.7), (24, 0.7)])
def test_most_names_on_moving_tissue_are_found(height: int, least: float) -> None:
    clips = sweeps((16, 480, 640), 4)
    found = []
    for trial in range(24):
        clip = clips[trial % 4].copy()
        for frame in clip:
            write_name(frame, height, np.random.default_rng(trial))
        found.append(bool(find_steady_text(clip)))
    assert np.mean(found) >= least


def test_tissue_is_seldom_taken_for_text() -> None:
    clips = [*sweeps((16, 64, 64), 60), *sweeps((16, 96, 96), 60), *sweeps((16, 240, 320), 60)]
    assert np.mean([bool(find_steady_text(clip)) for clip in clips]) <= 0.06


def test_a_black_frame_does_not_hide_text() -> None:
    clip = sweeps((16, 240, 320), 1)[0].copy()
    for frame in clip[1:]:
        cv2.putText(frame, "ROE JANE 1980", (60, 120), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 255, 2)
    clip[0] = 0
    assert find_steady_text(clip)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (60, 80)])
def test_pictures_of_one_colour_and_of_any_size_hold_no_text(size: tuple[int, int]) -> None:
    for value in (0, 128, 255):
        assert find_text(np.full(size, value, np.uint8)) == []


def test_text_of_real_screens_is_found_and_real_tissue_is_not(bundled: Callable[[str], Path]) -> None:
    pictures = {}
    for name in ("examples_rgb_color.dcm", "examples_palette.dcm"):
        with open_cine(bundled(name)) as recording:
            pictures[name] = next(iter(recording.frames(None)))[1]
    lines = {"examples_rgb_color.dcm": [16, 24, 32, 40, 184, 232], "examples_palette.dcm": [74, 131, 191, 210, 248]}
    for name, rows in lines.items():
        found = [(top, bottom) for top, bottom, _, _ in find_text(pictures[name])]
        assert all(any(top <= row <= bottom for top, bottom in found) for row in rows)
    assert find_text(pictures["examples_palette.dcm"][60:180, 340:590]) == []
    assert "warnings" not in read_clip([bundled("examples_ybr_color.dcm")], (16, 64, 64))[1]


def test_text_within_what_is_kept_is_told_and_text_around_it_is_not(
    tmp_path: Path, draw_screen: Callable[..., Any], write_video: Callable[..., Path]
) -> None:
    screen = draw_screen()
    _, record = read_clip([write_video(tmp_path / "around.mp4", screen.frames)], (16, 64, 64))
    assert "warnings" not in record
    for frame in screen.frames:
        cv2.putText(frame, "ROE JANE", (240, 260), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 255, 2)
    _, record = read_clip([write_video(tmp_path / "within.mp4", screen.frames)], (16, 64, 64))
    assert record["warnings"] == [WARNING]
