import base64
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import gdcm
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import convert_color_space
from pydicom.sequence import Sequence
from pydicom.uid import (
    HEVCMP51,
    MPEG2MPHL,
    MPEG4HP41,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from data_modules.ingest.cine import BURNED_IN, frame_times, open_cine
from data_modules.ingest.images import UnusableError
from data_modules.ingest.timing import DISTRUSTED
from data_modules.ingest.video import ASSUMED, read_clip

WriteCine = Callable[..., Path]
FULL = (20, 60, 80)  # as the frames are, so nothing is scaled or left out

# 8 frames of 48 x 64 as x264 and x265 write them, for OpenCV has no encoder of either.
H264 = (
    "AAAAAWdkAAqscgREehAAAAMAEAAAAwKA8SJYRgAAAAFo6EOJLIsAAAFliIEABf/+9KD4FMyiIBhv/9XwXy4R6GIZwAuJr1B4CPxsMA/BMBxJ1Np16Bmy"
    "DCSXkgs1MmDuOvSPiG8xUgq7SU01uVeArpA1v+Dl/aFZ4AFHg7Z2M7w4ZcyEs4svG/S9oALm+axv2Hy6J1bhAAAAAUGaCE2IX//5HOB7thP0mvaYAAAA"
    "AQGeECchX0M+wyhBAAAAAUGaEKvwIGTKYQv/+lXvkB2tCs0+g/w1VvAAAAABQZ4YZUQv/3G25UTDgQAAAAEBniCNyFf/ZuVPdk9tcmEAAAABQZog6XUC"
    "AtZMpgEK//4OQA+0ATi/rlr5AAAAAQGeKMSSFf9nhW8="
)
HEVC = (
    "AAAAAUABDAH//wFgAAADAJAAAAMAAAMAHpWYCQAAAAFCAQEBYAAAAwCQAAADAAADAB6gIIMWWVmuTK5oCAAAAwAIAAADAKBAAAAAAUQBwXPQiQAAASgB"
    "rx2AuiDCLo/+RJOVRCPybaKqAuNwHZtBP6YOhkseWZj3Lb+OmPpc4mRHsSQEtt4UP5Ud/58PkAB4BCnjHK58Zaq5gOVoLNZoh+ATNGPdxf1aVPU2aD0D"
    "flGKvfutAz7AEM8GDWrZ60BGWTA18oi2d22+7GrgGiOlO+1rhnmcOgAAAAECAdARV4QxjkD9whAZGSeKD9LQsW8AAAABAAHgJL+GEsCMPIAAAAABAgHQ"
    "Kd19RDBjkP3Mx7jegAAAAAECAeCGlX9RhDDoaqbjAAAAAQAB4Gb1/0iwkumFoocAAAABAgHQOLXVfJEMAY5A/bdLyp/AAAAAAQAB4MIvX9xhLOmFooc="
)


def luma(rgb: np.ndarray) -> np.ndarray:
    """ITU-R BT.601."""
    return rgb.astype(float) @ [0.299, 0.587, 0.114]


def frames_of(file: Path) -> np.ndarray:
    with open_cine(file) as recording:
        return np.stack([frame for _, frame in recording.frames(None)])


def in_colours(frames: np.ndarray) -> np.ndarray:
    return np.stack([frames, np.roll(frames, 9, 1), np.roll(frames, 9, 2)], -1)


def write_stream(write_cine: WriteCine, file: Path, stream: bytes, syntax: str, **attributes: object) -> Path:
    """Writes a video stream as a DICOM object."""
    dataset = pydicom.dcmread(write_cine(file, np.zeros((8, 48, 64, 3), np.uint8), "YBR_PARTIAL_420", **attributes))
    dataset.PixelData = encapsulate([stream + b"\0" * (len(stream) % 2)])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(file, enforce_file_format=True)
    return file


@pytest.mark.parametrize("compress", [None, RLELossless, JPEG2000Lossless])
def test_grey_cine_is_read_exactly(
    tmp_path: Path, write_cine: WriteCine, tissue_frames: np.ndarray, compress: str
) -> None:
    clip, _ = read_clip([write_cine(tmp_path / "a.dcm", tissue_frames, compress=compress)], FULL)
    np.testing.assert_array_equal(clip, tissue_frames)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "RGB"])
def test_every_uncompressed_syntax_is_read(
    tmp_path: Path, write_cine: WriteCine, tissue_frames: np.ndarray, syntax: str, photometric: str
) -> None:
    stored = in_colours(tissue_frames) if photometric == "RGB" else tissue_frames
    dataset = pydicom.dcmread(write_cine(tmp_path / "a.dcm", stored, photometric))
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset["PixelData"].VR = "OB"  # bytes, whose order nothing changes
    pydicom.dcmwrite(tmp_path / "b.dcm", dataset, enforce_file_format=True)
    assert np.abs(frames_of(tmp_path / "b.dcm") - (luma(stored) if photometric == "RGB" else stored)).max() < 0.51


def test_a_file_of_before_part_10_is_read(tmp_path: Path, write_cine: WriteCine, tissue_frames: np.ndarray) -> None:
    dataset = pydicom.dcmread(write_cine(tmp_path / "a.dcm", tissue_frames))
    for implicit, little in ((True, True), (False, True), (False, False)):
        bare = Dataset()
        bare.update(dataset)
        bare["PixelData"].VR = "OB"
        pydicom.dcmwrite(tmp_path / "bare.dcm", bare, implicit_vr=implicit, little_endian=little)
        np.testing.assert_array_equal(frames_of(tmp_path / "bare.dcm"), tissue_frames)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("JPEGLSLossless", 0), ("JPEGLosslessProcess14_1", 0), ("JPEGBaselineProcess1", 25), ("JPEG2000", 25)],
)
def test_what_gdcm_compresses_is_read(
    tmp_path: Path, write_cine: WriteCine, tissue_frames: np.ndarray, name: str, tolerance: float
) -> None:
    reader = gdcm.ImageReader()
    reader.SetFileName(str(write_cine(tmp_path / "a.dcm", tissue_frames)))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, name)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(tmp_path / "b.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    error = np.abs(frames_of(tmp_path / "b.dcm").astype(float) - tissue_frames)
    assert error.max() <= tolerance
    assert error.mean() <= 3


def test_inverted_grey_is_turned_back(tmp_path: Path, write_cine: WriteCine, tissue_frames: np.ndarray) -> None:
    np.testing.assert_array_equal(
        frames_of(write_cine(tmp_path / "a.dcm", 255 - tissue_frames, "MONOCHROME1")), tissue_frames
    )


@pytest.mark.parametrize(
    ("photometric", "compress"),
    [("RGB", None), ("RGB", RLELossless), ("YBR_FULL", None), ("YBR_FULL", RLELossless), ("RGB", JPEG2000Lossless)],
)
def test_colours_become_luma(
    tmp_path: Path, write_cine: WriteCine, tissue_frames: np.ndarray, photometric: str, compress: str
) -> None:
    rgb = in_colours(tissue_frames)
    stored = rgb if photometric == "RGB" else convert_color_space(rgb, "RGB", photometric)
    found = frames_of(write_cine(tmp_path / "a.dcm", stored, photometric, compress=compress))
    assert np.abs(found - luma(rgb)).max() <= 2  # rounding, once each way


@pytest.mark.parametrize(
    ("syntax", "in_memory"),
    [
        *[(ImplicitVRLittleEndian, 10**6), (ExplicitVRBigEndian, 10**6), (DeflatedExplicitVRLittleEndian, 10**6)],
        *[(ImplicitVRLittleEndian, 10_000), (ExplicitVRBigEndian, 10_000)],
    ],
)
def test_every_frame_of_uncompressed_subsampled_colours_is_read(
    tmp_path: Path,
    write_cine: WriteCine,
    tissue_frames: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    syntax: str,
    in_memory: int,
) -> None:
    ybr = convert_color_space(in_colours(tissue_frames).repeat(2, 2), "RGB", "YBR_FULL")
    dataset = pydicom.dcmread(write_cine(tmp_path / "a.dcm", ybr, "YBR_FULL_422"))
    even, odd = ybr[:, :, ::2], ybr[:, :, 1::2]  # of a pair of columns: both Y, one Cb, one Cr
    dataset.PixelData = np.stack([even[..., 0], odd[..., 0], even[..., 1], even[..., 2]], -1).tobytes()
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(tmp_path / "b.dcm", dataset, enforce_file_format=True)
    monkeypatch.setattr("data_modules.ingest.cine.IN_MEMORY", in_memory)
    expected = luma(in_colours(tissue_frames)).repeat(2, 2)
    assert np.abs(frames_of(tmp_path / "b.dcm") - expected).max() <= 2
    with open_cine(tmp_path / "b.dcm") as recording:
        found = np.stack([frame for _, frame in recording.frames([2, 19])])
    assert np.abs(found - expected[[2, 19]]).max() <= 2


def test_colour_jpeg_is_read_by_its_photometric_interpretation(
    tmp_path: Path, write_cine: WriteCine, tissue_frames: np.ndarray
) -> None:
    rgb = in_colours(cv2.GaussianBlur(tissue_frames.transpose(1, 2, 0), (0, 0), 2).transpose(2, 0, 1))
    dataset = pydicom.dcmread(write_cine(tmp_path / "a.dcm", rgb, "YBR_FULL_422"))
    encoded = [cv2.imencode(".jpg", frame[..., ::-1])[1].tobytes() for frame in rgb]
    dataset.PixelData = encapsulate(encoded)
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    assert np.abs(frames_of(tmp_path / "b.dcm") - luma(rgb)).mean() < 2


def test_deep_grey_is_scaled_from_the_bits_stored(
    tmp_path: Path, write_cine: WriteCine, tissue_frames: np.ndarray
) -> None:
    deep = tissue_frames.astype(np.uint16) * 16
    found = frames_of(write_cine(tmp_path / "a.dcm", deep, BitsStored=12, HighBit=11))
    assert np.abs(found - tissue_frames * (16 * 255 / 4095)).max() <= 0.51


def test_palette_colours_are_looked_up(bundled: Callable[[str], Path]) -> None:
    dataset = pydicom.dcmread(bundled("examples_palette.dcm"))
    (grey,) = frames_of(bundled("examples_palette.dcm"))
    tables = [
        np.frombuffer(dataset[f"{name}PaletteColorLookupTableData"].value, "<u2") for name in ("Red", "Green", "Blue")
    ]
    rgb = np.stack([table[dataset.pixel_array] for table in tables], -1) / 65535 * 255
    assert np.abs(grey - luma(rgb)).max() <= 2


@pytest.mark.parametrize(
    "name",
    [
        *["examples_ybr_color", "examples_rgb_color", "examples_jpeg2k", "ExplVR_BigEnd", "GDCMJ2K_TextGBR"],
        *["SC_rgb_dcmtk_+eb+cr", "SC_rgb_dcmtk_+eb+cy+n1", "SC_rgb_dcmtk_+eb+cy+np", "SC_rgb_dcmtk_+eb+cy+s4"],
        *["SC_rgb_gdcm_KY", "SC_rgb_jls_lossy_line", "SC_rgb_jls_lossy_sample", "SC_jpeg_no_color_transform"],
        *["SC_rgb_jpeg_gdcm", "SC_rgb_jpeg_lossy_gdcm", "SC_rgb_rle_2frame", "SC_rgb_small_odd_big_endian"],
        *["SC_ybr_full_422_uncompressed", "SC_rgb_jpeg_app14_dcmd", "SC_rgb_jpeg"],
    ],
)
def test_real_colours_are_those_that_simpleitk_decodes(bundled: Callable[[str], Path], name: str) -> None:
    file = bundled(f"{name}.dcm")
    found = frames_of(file)
    decoded = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
    assert decoded.shape == (*found.shape, 3)
    assert np.abs(found - luma(decoded)).max() <= 1


@pytest.mark.parametrize("name", ["JPEGLSNearLossless_08", "image_dfl"])
def test_real_grey_values_are_those_that_simpleitk_decodes(bundled: Callable[[str], Path], name: str) -> None:
    file = bundled(f"{name}.dcm")
    decoded = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
    np.testing.assert_array_equal(frames_of(file), decoded.reshape(-1, *decoded.shape[-2:]))


@pytest.mark.parametrize(("codec", "suffix", "syntax"), [("MPG2", "mpg", MPEG2MPHL), ("mp4v", "mp4", MPEG4HP41)])
def test_a_video_within_dicom_is_decoded(
    tmp_path: Path,
    write_cine: WriteCine,
    write_video: Callable[..., Path],
    tissue_frames: np.ndarray,
    codec: str,
    suffix: str,
    syntax: str,
) -> None:
    video = write_video(tmp_path / f"a.{suffix}", tissue_frames, codec)
    clip, record = read_clip([write_stream(write_cine, tmp_path / "a.dcm", video.read_bytes(), syntax)], FULL)
    np.testing.assert_array_equal(clip, read_clip([video], FULL)[0])
    assert np.abs(clip.astype(float) - tissue_frames).mean() < 8
    assert record["original"]["frames"] == 20
    assert record["source"]["transfer_syntax"] == syntax.name


@pytest.mark.parametrize(("stream", "syntax"), [(H264, MPEG4HP41), (HEVC, HEVCMP51)])
def test_h264_and_hevc_within_dicom_are_decoded_at_the_headers_rate(
    tmp_path: Path, write_cine: WriteCine, stream: str, syntax: str
) -> None:
    expected = np.full((8, 48, 64), 30, np.uint8)
    for index, frame in enumerate(expected):
        cv2.circle(frame, (12 + 5 * index, 24), 8, 220, -1)
    file = write_stream(write_cine, tmp_path / "a.dcm", base64.b64decode(stream), syntax, FrameTime=50.0)
    assert np.abs(frames_of(file).astype(float) - expected).mean() < 1
    assert read_clip([file], (8, 48, 64))[1]["original"]["duration_s"] == 0.35


def test_the_stream_is_nobodys_to_read_and_gone_afterwards(
    tmp_path: Path, write_cine: WriteCine, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    stream = base64.b64decode(H264)
    file = write_stream(write_cine, tmp_path / "P1_Roe.dcm", stream, MPEG4HP41)
    with open_cine(file):
        (written,) = folder.iterdir()
        assert written.stat().st_mode & 0o777 == 0o600
        assert written.name.startswith("clip-")
        assert written.read_bytes().startswith(stream)
    assert not list(folder.iterdir())
    with pytest.raises(UnusableError, match="cannot be opened as a video"):
        read_clip([write_stream(write_cine, file, b"no video", MPEG4HP41)], FULL)
    assert not list(folder.iterdir())


def test_times_come_from_vector_frame_time_or_rate() -> None:
    dataset = Dataset()
    assert frame_times(dataset) == (pytest.approx([]), 0)
    dataset.RecommendedDisplayFrameRate = 20
    assert frame_times(dataset)[1] == 50
    dataset.CineRate = 25
    assert frame_times(dataset)[1] == 40
    dataset.FrameTime = 20.0
    assert frame_times(dataset)[1] == 20
    dataset.FrameTime = 0.02  # seconds
    assert frame_times(dataset)[1] == 40
    dataset.CineRate = 0.001
    assert frame_times(dataset)[1] == 50
    dataset.FrameTimeVector = [0.0, 10.0, 50.0]
    np.testing.assert_allclose(frame_times(dataset)[0], [0, 10, 60])


@pytest.mark.parametrize("rate", [0.0, 5.0])
def test_frames_of_a_cine_of_uneven_rate_are_chosen_by_time(
    tmp_path: Path, write_cine: WriteCine, tissue_frames: np.ndarray, rate: float
) -> None:
    steps = [0.0] + [10.0] * 10 + [100.0] * 9
    clip, record = read_clip([write_cine(tmp_path / "a.dcm", tissue_frames, FrameTimeVector=steps)], (5, 60, 80), rate)
    times = np.cumsum(steps)
    # At 5 Hz from 100 ms on, the last frame before the middle 800 ms begin.
    moments = 100 + np.arange(5) * 200 if rate else np.linspace(0, 1000, 5)
    nearest = np.abs(times - moments[:, None]).argmin(1)
    np.testing.assert_array_equal(clip, tissue_frames[nearest])
    assert record["original"] == {"size": [60, 80], "frames": 20, "duration_s": 1.0, "frame_times": "time stamps"}


def test_a_vector_of_another_length_gives_way_to_the_frame_time(
    tmp_path: Path, write_cine: WriteCine, tissue_frames: np.ndarray
) -> None:
    for vector in ([0.0, 10.0], [0.0] + [0.0] * 19):
        file = write_cine(tmp_path / "a.dcm", tissue_frames, FrameTimeVector=vector, FrameTime=40.0)
        original = read_clip([file], FULL)[1]["original"]
        assert (original["duration_s"], original["frame_times"]) == (0.76, "stated frame rate")


def test_a_frame_time_in_seconds_gives_way_to_the_rate(
    tmp_path: Path, write_cine: WriteCine, tissue_frames: np.ndarray
) -> None:
    attributes = {"FrameTime": 0.05, "CineRate": 20, "FrameTimeVector": [0.0] + [0.05] * 19}
    expected, plain = read_clip([write_cine(tmp_path / "a.dcm", tissue_frames)], (4, 60, 80), 5.0)
    for left_out in ((), ("FrameTimeVector",), ("FrameTimeVector", "CineRate")):
        given = {name: value for name, value in attributes.items() if name not in left_out}
        clip, record = read_clip([write_cine(tmp_path / "b.dcm", tissue_frames, **given)], (4, 60, 80), 5.0)
        np.testing.assert_array_equal(clip, expected)
        assert record["steps"] == plain["steps"]
        rate = "CineRate" in given
        assert record["original"]["frame_times"] == ("stated frame rate" if rate else "assumed")
        assert record["warnings"] == [DISTRUSTED, *([] if rate else [ASSUMED])]
    assert "warnings" not in plain


def test_burned_in_text_that_the_header_admits_is_told_where_no_region_cuts_it(
    tmp_path: Path, write_cine: WriteCine, tissue_frames: np.ndarray
) -> None:
    item = Dataset()
    item.RegionSpatialFormat = item.RegionDataType = 1
    item.RegionLocationMinX0 = item.RegionLocationMinY0 = 10
    item.RegionLocationMaxX1 = item.RegionLocationMaxY1 = 49
    for value, regions, warnings in [("YES", [], [BURNED_IN]), ("NO", [], None), ("YES", [item], None)]:
        attributes = {"BurnedInAnnotation": value, "SequenceOfUltrasoundRegions": Sequence(regions)}
        _, record = read_clip([write_cine(tmp_path / "a.dcm", tissue_frames, **attributes)], FULL)
        assert record.get("warnings") == warnings


def test_a_file_too_large_for_the_memory_is_read_frame_by_frame(
    tmp_path: Path, write_cine: WriteCine, tissue_frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_modules.ingest.cine.IN_MEMORY", 10_000)
    monkeypatch.setattr("data_modules.ingest.cine.LEFT_ON_DISK", 1000)
    for compress in (None, RLELossless):
        file = write_cine(tmp_path / "a.dcm", tissue_frames, compress=compress)
        np.testing.assert_array_equal(frames_of(file), tissue_frames)
        with open_cine(file) as recording:
            found = [frame for _, frame in recording.frames([2, 19])]
        np.testing.assert_array_equal(found, tissue_frames[[2, 19]])


@pytest.mark.parametrize("compress", [None, RLELossless])
def test_absurd_headers_are_refused_before_anything_is_decoded(
    tmp_path: Path, write_cine: WriteCine, tissue_frames: np.ndarray, compress: str
) -> None:
    file = write_cine(tmp_path / "a.dcm", tissue_frames, compress=compress)
    for attributes, reason in [
        ({"NumberOfFrames": 2_000_000_000}, "too many for a clip"),
        ({"Rows": 65_535, "Columns": 65_535}, "a damaged header"),
        ({"Rows": 0}, "a damaged header"),
        ({"NumberOfFrames": 90_000}, "its frames cannot be decoded|ends early"),
        ({"Rows": 3000, "Columns": 4000}, "its frames cannot be decoded"),
        ({"BitsStored": None}, "BitsStored is no number"),
        ({"Rows": None}, "Rows is no number"),
        ({"PhotometricInterpretation": None}, "photometric interpretation unknown"),
        ({"PhotometricInterpretation": "XYZ"}, "photometric interpretation XYZ"),
        ({"PixelData": None}, "it has no pixels|cannot be decoded"),
    ]:
        dataset = pydicom.dcmread(file)
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
            if value is None:
                delattr(dataset, keyword)
        dataset.save_as(tmp_path / "b.dcm", enforce_file_format=True)
        with pytest.raises(UnusableError, match=reason):
            read_clip([tmp_path / "b.dcm"], (16, 32, 32))


@pytest.mark.parametrize("name", ["JPEGLSNearLossless_08", "examples_ybr_color", "examples_jpeg2k", "SC_rgb_rle"])
def test_damaged_files_are_refused_in_words_and_nothing_is_printed(
    tmp_path: Path, bundled: Callable[[str], Path], capfd: pytest.CaptureFixture[str], name: str
) -> None:
    whole = np.frombuffer(bundled(f"{name}.dcm").read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    damages = [whole[: len(whole) * share // 10] for share in range(1, 10)]
    for reach, n in [(len(whole), 200)] * 10 + [(min(2000, len(whole)), 20)] * 20:  # all of it, or its header
        damaged = whole.copy()
        damaged[rng.integers(0, reach, n)] = rng.integers(0, 256, n)
        damages.append(damaged)
    for damaged in damages:
        (tmp_path / "a.dcm").write_bytes(damaged.tobytes())
        try:
            assert frames_of(tmp_path / "a.dcm").ndim == 3
        except UnusableError as error:
            assert error.reason
    assert capfd.readouterr() == ("", "")


def test_stamps_are_nan_where_the_header_has_none(
    tmp_path: Path, write_cine: WriteCine, tissue_frames: np.ndarray
) -> None:
    with open_cine(write_cine(tmp_path / "a.dcm", tissue_frames)) as recording:
        assert all(math.isnan(time) for time, _ in recording.frames([0, 1]))
        assert recording.frame_time == 50
