"""Folders as they are: links, pipes, missing permissions, empty files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from data_modules.ingest.discovery import list_files
from data_modules.ingest.images import Rejection


def rejected(rejections: list[Rejection]) -> dict[str, str]:
    return {rejection.source: rejection.reason for rejection in rejections}


@contextmanager
def as_nobody() -> Iterator[None]:
    """The super-user may read everything: be somebody else for a while."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_all_files_are_listed_but_hidden_ones_and_the_labels(tmp_path: Path) -> None:
    for name in ("b/2.dcm", "a", "b/__MACOSX/x.dcm", ".DS_Store", "b/._2.dcm", "labels.csv", "b/labels.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    files, rejections = list_files(tmp_path, tmp_path / "labels.csv")
    assert files == ["a", "b/2.dcm", "b/labels.csv"]
    assert not rejections


def test_linked_folders_are_followed_once_and_loops_are_named(tmp_path: Path) -> None:
    source, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    (source / "true").mkdir(parents=True)
    elsewhere.mkdir()
    (source / "true" / "1").write_text("x")
    (elsewhere / "2").write_text("x")
    (source / "a link").symlink_to(source / "true")
    (source / "true" / "up").symlink_to(source)
    (source / "true" / "self").symlink_to(source / "true")
    (source / "other disk").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(elsewhere)
    (source / "gone").symlink_to(source / "nowhere")
    (source / "round").symlink_to(source / "round")
    files, rejections = list_files(source, source / "labels.csv")
    assert files == ["other disk/2", "true/1"]
    assert rejected(rejections) == {
        "a link": "a link to a folder that is read already",
        "true/up": "a link that leads back to a folder above it",
        "true/self": "a link that leads back to a folder above it",
        "other disk/back": "a link that leads back to a folder above it",
        "gone": "a broken link",
        "round": "a broken link",
    }
    assert [(r.source, r.detail) for r in rejections if not r.defect] == [("a link", "true")]


def test_what_cannot_be_opened_is_named_and_nothing_waits_for_a_pipe(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "empty.nii").touch()
    os.mkfifo(tmp_path / "pipe.dcm")
    (tmp_path / "good").write_text("x")
    (tmp_path / "secret.nii").write_text("x")
    (tmp_path / "secret.nii").chmod(0)
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "x.nii").write_text("x")
    (tmp_path / "closed").chmod(0)
    for folder in tmp_path.parents:
        if (mode := folder.stat().st_mode) & 0o055 != 0o055:
            folder.chmod(mode | 0o055)
    try:
        with as_nobody():
            files, rejections = list_files(tmp_path, tmp_path / "labels.csv")
    finally:
        (tmp_path / "closed").chmod(0o755)
    assert files == ["good"]
    assert rejected(rejections) == {
        "empty.nii": "the file is empty",
        "pipe.dcm": "neither a file nor a folder",
        "secret.nii": "no permission to read it",
        "closed": "no permission to open the folder",
    }


@pytest.mark.parametrize("name", ["Ünïcödé.dcm", "a b.dcm", "line\nbreak.dcm", "\udce9.dcm"])
def test_strange_names_are_files_like_others(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    assert list_files(tmp_path, tmp_path / "labels.csv")[0] == [name]
