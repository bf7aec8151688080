import re
from collections.abc import Callable
from pathlib import Path

import pytest

from data_modules.errors import InputError
from data_modules.inspection import write_report


def test_the_report_is_one_page_with_counts_pictures_and_what_was_left_out(write_cohort: Callable[..., Path]) -> None:
    cohort = write_cohort()
    (cohort / "rejected.csv").write_text("modality,source,reason\nmri,<b>x</b>.dcm,a localiser\n")
    page = write_report(cohort).read_text()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
    assert "MRI: 42 cases of 42 patients" in text
    assert "TVUS: 20 cases of 20 patients" in text
    assert "20 patients have both modalities" in text
    assert "none 0 0 12" in text or "none 0 0 2" in text  # patients without a fold
    assert "all 10 20 12" in text
    assert "a localiser" in text
    assert "<b>x</b>" not in page  # escaped
    assert page.count("data:image/png;base64,") == 4
    assert not re.search(r"(src|href)=\"(?!data:)", page)  # it needs no other file


def test_a_folder_that_is_no_cohort_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds neither mri\.csv nor tvus\.csv"):
        write_report(tmp_path)
