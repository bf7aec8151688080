"""Files that are written in one step."""

from pathlib import Path

import pytest

from data_modules.files import name_beside, replacing


def test_a_file_is_replaced_when_the_block_ends_and_not_before(tmp_path: Path) -> None:
    file = tmp_path / "mri.csv"
    file.write_text("old")
    with replacing(file) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("failure", [OSError("No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_no_part_of_the_new_one(tmp_path: Path, failure: BaseException) -> None:
    file = tmp_path / "mri.csv"
    file.write_text("old")
    with pytest.raises(type(failure)), replacing(file) as temporary:
        temporary.write_text("half of the n")
        raise failure
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_two_writers_of_one_process_number_do_not_share_a_name(tmp_path: Path) -> None:
    names = {name_beside(tmp_path / "mri.csv") for _ in range(100)}
    assert len(names) == 100
    assert {name.parent for name in names} == {tmp_path}
    assert all(name.name.startswith(".mri.csv.") for name in names)
