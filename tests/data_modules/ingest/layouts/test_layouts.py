import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data_modules.errors import InputError
from data_modules.ingest import layouts
from data_modules.ingest.layouts import group_by_case, layout_names, open_layout, try_files
from data_modules.ingest.nifti import read_grid
from data_modules.ingest.workers import Lost

GUIDE = Path(__file__).parents[4] / "docs" / "public_sets.md"


def test_every_module_of_the_package_is_a_layout() -> None:
    assert layout_names() == ["totalsegmentator-mri", "umd", "ut-endomri"]
    for name in layout_names():
        assert open_layout(name)(Path(), [], map) == ([], [])


def test_an_unknown_layout_is_told_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"^--layout umdd: no such layout; choose one of totalsegmentator-mri, umd, "):
        open_layout("umdd")


def test_the_guides_example_is_found_by_its_name_and_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = re.search(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert example is not None
    package = tmp_path / "package"
    package.mkdir()
    (package / "my_hospital.py").write_text(example[1])
    monkeypatch.setattr(layouts, "__path__", [*layouts.__path__, str(package)])
    assert "my-hospital" in layout_names()
    files = ["export/case-7/t2.nii.gz", "export/case-7/uterus.nii.gz", "export/case-8/notes.pdf", "export/README.md"]
    images, rejections = open_layout("my-hospital")(tmp_path, files, map)
    assert [(image.files, image.patient, image.masks) for image in images] == [
        (("export/case-7/t2.nii.gz",), "case-7", ("export/case-7/uterus.nii.gz",))
    ]
    assert [(rejection.source, rejection.defect) for rejection in rejections] == [("export/case-8", True)]


def test_files_are_grouped_by_case_folder_at_any_depth() -> None:
    files = [
        "a/C1/x.nii",
        "a/C1/deep/y",
        "a/C1/._x.nii",
        "C2/C3/z.nii",
        "__MACOSX/C1/x.nii",
        "a/list.csv",
        "a/C4/a.txt",
    ]
    cases, rejections = group_by_case([*files, "a/lost.nii.gz", "a/lost.dcm"], re.compile(r"C\d"))
    assert cases == {"a/C1": ["a/C1/x.nii", "a/C1/deep/y"], "C2/C3": ["C2/C3/z.nii"], "a/C4": []}
    assert [(rejection.source, rejection.defect) for rejection in rejections] == [
        ("a/lost.nii.gz", True),
        ("a/lost.dcm", False),
    ]


def test_a_file_that_fails_or_takes_too_much_costs_only_itself(tmp_path: Path) -> None:
    names = [f"{number}.nii" for number in range(20)]
    for number, name in enumerate(names):
        nib.save(nib.Nifti1Image(np.zeros((4, 4, number + 1), np.int16), np.eye(4)), tmp_path / name)
    (tmp_path / "3.nii").write_bytes(b"damaged")

    def over(function, tasks):  # type: ignore[no-untyped-def]
        return [Lost("too large") if "18.nii" in task else function(task) for task in tasks]

    grids = try_files(read_grid, tmp_path, names, over)
    assert [number for number, grid in enumerate(grids) if grid is None] == [3, 18]
    assert [grid[0][2] for grid in grids if grid] == [n + 1 for n in range(20) if n not in (3, 18)]
