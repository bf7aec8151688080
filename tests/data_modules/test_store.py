from pathlib import Path

import numpy as np
import pytest

from data_modules.errors import InputError
from data_modules.store import read_array, read_record, write_array


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
