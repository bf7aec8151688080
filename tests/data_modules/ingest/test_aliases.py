"""Files whose names are no UTF-8, as exports of older systems have them."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_modules.ingest.aliases import alias
from data_modules.ingest.container import open_video
from data_modules.ingest.dicom import scan_files
from data_modules.ingest.geometry import check_geometry
from data_modules.ingest.series import find_volumes

LATIN_1 = b"M\xfcller0".decode(errors="surrogateescape")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_name_that_is_no_utf_8_gets_a_link_that_tells_nothing_and_goes(tmp_path: Path, temporary: Path) -> None:
    file = tmp_path / LATIN_1 / "Roe.avi"
    file.parent.mkdir()
    file.write_text("content")
    with alias(file) as name:
        assert str(name).isascii()
        assert name.suffix == ".avi"
        assert "Roe" not in str(name)
        assert name.parent.stat().st_mode & 0o777 == 0o700
        assert name.read_text() == "content"
    assert not list(temporary.iterdir())
    plain = tmp_path / "Müller.avi"
    with alias(plain) as name:
        assert name == plain


def test_series_in_such_a_folder_are_checked_by_simpleitk(
    tmp_path: Path, temporary: Path, write_series: Callable[..., list[Path]], noise_volume: np.ndarray
) -> None:
    write_series(tmp_path / LATIN_1, noise_volume)
    files = sorted(f"{LATIN_1}/{file.name}" for file in (tmp_path / LATIN_1).iterdir())
    ((image,), _) = find_volumes(scan_files(tmp_path, files, map)[0])
    assert check_geometry(tmp_path, image.files, np.array(image.affine)) == "SimpleITK agrees"
    assert not list(temporary.iterdir())


def test_videos_in_such_a_folder_are_read(
    tmp_path: Path, temporary: Path, write_video: Callable[..., Path], tissue_frames: np.ndarray
) -> None:
    file = tmp_path / LATIN_1 / b"\xe9.avi".decode(errors="surrogateescape")
    file.parent.mkdir()
    write_video(tmp_path / "a.avi", tissue_frames, "FFV1").rename(file)
    frames = [frame for _, frame in open_video(file, {}).frames(None)]
    np.testing.assert_array_equal(frames, tissue_frames)
    assert not list(temporary.iterdir())
