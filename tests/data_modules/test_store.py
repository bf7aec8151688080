from pathlib import Path

import numpy as np
import pytest

from data_modules.errors import InputError
from data_modules.store import is_whole, read_array, read_arrays, read_record, write_array


def test_an_array_comes_back_mapped_into_memory_with_its_record(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((3, 4, 5)).astype(np.float16)[:, ::2]
    write_array(tmp_path / "mri" / "a.npy", array, {"steps": ["é"]})
    back = read_array(tmp_path / "mri" / "a.npy")
    assert isinstance(back, np.memmap)
    np.testing.assert_array_equal(back, array)
    assert read_record(tmp_path / "mri" / "a.npy") == {"steps": ["é"]}
    assert sorted(path.name for path in (tmp_path / "mri").iterdir()) == ["a.json", "a.npy"]


def test_an_array_without_whole_record_does_not_count(tmp_path: Path) -> None:
    write_array(tmp_path / "a.npy", np.zeros(3), {"x": 1})
    (tmp_path / "a.json").write_text('{"x": ')
    assert read_record(tmp_path / "a.npy") is None
    assert read_record(tmp_path / "b.npy") is None


def test_a_damaged_array_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match=r"a\.npy: not a readable array; ingest"):
        read_array(tmp_path / "a.npy")


def test_an_array_of_another_length_than_its_header_says_is_not_whole_and_keeps_its_record(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    write_array(file, np.arange(60, dtype=np.float16).reshape(3, 4, 5), {"x": 1})
    whole = file.read_bytes()
    assert is_whole(file)
    for content in (b"", whole[:6], whole[:100], whole[:-1], whole + b"\0"):
        file.write_bytes(content)
        assert not is_whole(file)
        assert read_record(file) == {"x": 1}
    file.unlink()
    assert not is_whole(file)
    assert read_record(file) is None


@pytest.mark.parametrize("dtype", [np.float16, np.uint8])
def test_many_arrays_are_read_without_mapping_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: type
) -> None:
    arrays = np.random.default_rng(0).integers(0, 200, (3, 4, 5, 6)).astype(dtype)
    for number, array in enumerate(arrays):
        write_array(tmp_path / f"{number}.npy", array, {})
    monkeypatch.delattr(np, "load")
    out = np.zeros((2, 4, 5, 6), dtype)
    read_arrays([tmp_path / "2.npy", tmp_path / "0.npy"], out)
    np.testing.assert_array_equal(out, arrays[[2, 0]])


def test_many_arrays_may_come_from_other_writers(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((4, 5, 6)).astype(np.float16)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(array))
    with (tmp_path / "version2.npy").open("wb") as file:
        np.lib.format.write_array(file, array, version=(2, 0))
    out = np.zeros((2, 4, 5, 6), np.float16)
    read_arrays([tmp_path / "fortran.npy", tmp_path / "version2.npy"], out)
    np.testing.assert_array_equal(out, np.stack([array, array]))


def test_an_array_that_does_not_fit_its_row_is_told_in_one_line(tmp_path: Path) -> None:
    write_array(tmp_path / "shape.npy", np.zeros((2, 3), np.float16), {})
    write_array(tmp_path / "type.npy", np.zeros((4, 3), np.uint8), {})
    write_array(tmp_path / "short.npy", np.zeros((4, 3), np.float16), {})
    (tmp_path / "short.npy").write_bytes((tmp_path / "short.npy").read_bytes()[:-1])
    out = np.empty((1, 4, 3), np.float16)
    for name, message in {
        "shape": r"shape\.npy: is \(2, 3\) float16, others of the cohort \(4, 3\) float16; ingest",
        "type": r"type\.npy: is \(4, 3\) uint8, others",
        "short": r"short\.npy: not a readable array; ingest",
        "missing": r"missing\.npy: not a readable array; ingest",
    }.items():
        with pytest.raises(InputError, match=message):
            read_arrays([tmp_path / f"{name}.npy"], out)
