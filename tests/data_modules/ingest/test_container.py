from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_modules.ingest.container import open_video
from data_modules.ingest.images import UnusableError
from data_modules.ingest.video import read_clip

WriteVideo = Callable[..., Path]
FULL = (20, 60, 80)
CODECS = [
    *[("MJPG", "avi"), ("mp4v", "mp4"), ("mp4v", "mkv"), ("mp4v", "mov"), ("XVID", "avi"), ("MPG2", "mpg")],
    *[("VP80", "webm"), ("VP90", "webm"), ("WMV2", "wmv"), ("FFV1", "avi"), ("mp4v", "m4v")],
    *[("MPG2", "ts"), ("mp4v", "mts"), ("mp4v", "m2ts"), ("MPG2", "vob"), ("mp4v", "3gp"), ("mp4v", "3g2")],
    *[("WMV2", "asf"), ("FLV1", "flv")],
]


@pytest.mark.parametrize(("codec", "suffix"), CODECS)
def test_every_container_gives_the_same_clip(
    tmp_path: Path, write_video: WriteVideo, tissue_frames: np.ndarray, codec: str, suffix: str
) -> None:
    clip, record = read_clip([write_video(tmp_path / f"a.{suffix}", tissue_frames, codec)], FULL)
    error = np.abs(clip.astype(float) - tissue_frames).mean()
    neighbour = np.abs(np.diff(tissue_frames.astype(float), axis=0)).mean()
    assert error < 0.4 * neighbour  # so no frame stands in another's place
    assert record["source"] == {"format": suffix.upper()}
    assert record["original"]["frames"] == 20
    assert record["original"]["duration_s"] == pytest.approx(0.95, abs=0.01)


def test_only_the_frames_asked_for_are_given(
    tmp_path: Path, write_video: WriteVideo, tissue_frames: np.ndarray
) -> None:
    recording = open_video(write_video(tmp_path / "a.mp4", tissue_frames), {})
    every = list(recording.frames(None))
    for (time, frame), index in zip(recording.frames([0, 7, 19]), [0, 7, 19], strict=True):
        assert time == every[index][0]
        np.testing.assert_array_equal(frame, every[index][1])


def test_the_time_stamps_of_a_video_of_uneven_rate_are_its_own(
    tmp_path: Path, write_uneven_video: WriteVideo, tissue_frames: np.ndarray
) -> None:
    times = [0, *np.cumsum([20] * 10 + [150] * 9).tolist()]
    recording = open_video(write_uneven_video(tmp_path / "a.mkv", tissue_frames, times), {})
    np.testing.assert_allclose([time for time, _ in recording.frames(None)], times)
    assert recording.stated > 1000  # as Matroska estimates it from the length, which must not read as frames missing


@pytest.mark.parametrize("rate", [0.0, 4.0])
def test_frames_of_a_video_of_uneven_rate_are_chosen_by_time(
    tmp_path: Path, write_uneven_video: WriteVideo, tissue_frames: np.ndarray, rate: float
) -> None:
    times = np.array([0, *np.cumsum([20] * 10 + [150] * 9).tolist()])
    file = write_uneven_video(tmp_path / "a.mkv", tissue_frames, times.tolist())
    clip, record = read_clip([file], (6, 60, 80), rate)
    moments = np.linspace(0, times[-1], 6)
    if rate:  # in the middle, from a frame on
        start = times[times <= (times[-1] - 5 * 250) / 2].max()
        moments = start + np.arange(6) * 250
    nearest = np.array([np.abs(times - moment).argmin() for moment in moments])
    assert record["steps"][-1]["frames"] == nearest.tolist()
    assert np.abs(clip.astype(float) - tissue_frames[nearest]).mean() < 4
    assert record["original"]["frame_times"] == "time stamps"


def test_a_name_that_looks_like_a_protocol_or_a_pattern_is_a_file(
    tmp_path: Path, write_video: WriteVideo, tissue_frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("http:x.avi", "a%03d.avi", "Müller ß 01.avi"):
        assert read_clip([write_video(tmp_path / "b.avi", tissue_frames).rename(name)], FULL)[0].shape == FULL


def test_what_is_no_video_is_said_in_words_and_nothing_is_printed(
    tmp_path: Path, write_video: WriteVideo, tissue_frames: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    cases = [(tmp_path / "text.avi", b"no video", "cannot be opened"), (tmp_path / "empty.mp4", b"", "an empty file")]
    for codec, suffix, reason in [
        ("MJPG", "avi", "ends early: [0-9]+ of 20 frames|cannot be opened"),
        ("mp4v", "mp4", "cannot be opened"),  # its index is at the end
        ("mp4v", "mkv", "ends early|cannot be opened|no frame"),
        ("VP80", "webm", "ends early|cannot be opened|no frame"),
    ]:
        whole = write_video(tmp_path / f"whole.{suffix}", tissue_frames, codec).read_bytes()
        cases += [(tmp_path / f"{share}.{suffix}", whole[: len(whole) * share // 100], reason) for share in (10, 50)]
    still = write_video(tmp_path / "still.mp4", np.repeat(tissue_frames[:1], 20, 0)).read_bytes()
    plain = write_video(tmp_path / "plain.mp4", np.full_like(tissue_frames, 128)).read_bytes()
    single = write_video(tmp_path / "single.mp4", tissue_frames[:1]).read_bytes()
    cases += [(tmp_path / "c.mp4", still, "a still image"), (tmp_path / "d.mp4", plain, "a still image")]
    cases += [(tmp_path / "e.mp4", single, "a single frame")]
    capfd.readouterr()  # what the encoders say
    for file, content, reason in cases:
        file.write_bytes(content)
        with pytest.raises(UnusableError, match=reason):
            read_clip([file], (16, 32, 32))
    assert capfd.readouterr() == ("", "")


def test_a_video_whose_middle_is_damaged_is_read_or_refused(
    tmp_path: Path, write_video: WriteVideo, tissue_frames: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for codec, suffix in (("mp4v", "mp4"), ("MJPG", "avi"), ("MPG2", "mpg"), ("VP80", "webm")):
        file = write_video(tmp_path / f"a.{suffix}", tissue_frames, codec)
        whole = np.frombuffer(file.read_bytes(), np.uint8)
        capfd.readouterr()
        for _ in range(10):
            damaged = whole.copy()
            damaged[rng.integers(0, len(whole), 20)] = rng.integers(0, 256, 20)
            file.write_bytes(damaged.tobytes())
            try:
                assert read_clip([file], (16, 32, 32))[0].shape == (16, 32, 32)
            except UnusableError as error:
                assert error.reason
        assert capfd.readouterr() == ("", "")
