"""The affine of a series against SimpleITK's reading of its headers, in the ingest itself."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_modules.ingest.dicom import scan_files
from data_modules.ingest.geometry import check_geometry
from data_modules.ingest.images import UnusableError
from data_modules.ingest.series import find_volumes


@pytest.mark.parametrize("angles", [(0, 0, 0), (12, -17, 9), (80, 3, -40)])
def test_both_agree_and_any_other_affine_is_refused(
    tmp_path: Path, write_series: Callable[..., list[Path]], noise_volume: np.ndarray, angles: tuple[int, int, int]
) -> None:
    directions = Rotation.from_euler("xyz", angles, degrees=True).apply([[0, 1, 0], [0, 0, -1]])
    write_series(tmp_path, noise_volume, directions, spacing=(4.0, 1.5, 0.9))
    frames, _ = scan_files(tmp_path, sorted(file.name for file in tmp_path.iterdir()), map)
    ((image,), _) = find_volumes(frames)
    affine = np.array(image.affine)
    assert check_geometry(tmp_path, image.files, affine) == "SimpleITK agrees"
    for wrong in (
        affine @ np.diag([1.0, 1.0, 1.02, 1.0]),  # another pixel size
        affine[:, [0, 2, 1, 3]],  # rows for columns
        affine + np.eye(4)[:, [3, 3, 3, 2]] @ np.diag([0, 0, 0, 0.5]),  # shifted by half a millimetre
        affine @ np.diag([1.02, 1.0, 1.0, 1.0]),  # another distance between the slices
    ):
        with pytest.raises(UnusableError, match=r"SimpleITK reads a geometry that is .* mm off"):
            check_geometry(tmp_path, image.files, wrong)
    assert check_geometry(tmp_path, [image.files[0]] * 4, affine).startswith("not asked: several frames")
