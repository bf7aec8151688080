"""TotalSegmentator MRI (Zenodo 14710732): 616 scans of all body parts and sequences, with segmentations.

Cases are ``s0001/mri.nii.gz`` with a binary mask a structure, ``s0001/segmentations/hip_left.nii.gz``. Sequences are
not named. A scan shows the pelvis where the mask of a pelvic structure is not empty.
"""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from data_modules.ingest.images import Rejection, SourceImage
from data_modules.ingest.layouts import group_by_case, is_nifti, stem_of, try_files
from data_modules.ingest.masks import is_blank
from data_modules.ingest.workers import Map

CASE = re.compile(r"s\d+")
PELVIS = ("hip_left", "hip_right", "sacrum", "urinary_bladder", "prostate")
# show that the pelvis is there, and reach far beyond it
MUSCLES = tuple(f"gluteus_{part}_{side}" for part in ("maximus", "medius", "minimus") for side in ("left", "right"))


def find(source: Path, files: Sequence[str], over: Map) -> tuple[list[SourceImage], list[Rejection]]:
    """Finds the scans that show a pelvis, or of which one cannot tell.

    The masks of pelvic bones and organs lead the crop, those of the gluteal muscles only where there are no others.
    """
    cases, rejections = group_by_case(files, CASE)
    pelvic = {folder: [file for file in members if _is_pelvic(folder, file)] for folder, members in cases.items()}
    listed = [file for members in pelvic.values() for file in members]
    blank = dict(zip(listed, try_files(is_blank, source, listed, over), strict=True))
    images = []
    for folder, members in cases.items():
        scan = f"{folder}/mri.nii.gz"
        for file in members:
            if file != scan and not (is_nifti(file) and _is_segmentation(folder, file)):
                rejections.append(Rejection(file, "not part of the set", defect=is_nifti(file)))
        visible = [file for file in pelvic[folder] if not blank[file]]
        if scan not in members:
            rejections.append(Rejection(folder, "no mri.nii.gz in the case folder"))
        elif pelvic[folder] and not visible:
            rejections.append(Rejection(scan, "no pelvis in the field of view", defect=False))
        else:
            shown = ", ".join(map(stem_of, visible)) or "unknown: there are no masks of pelvic structures"
            middle = [file for file in visible if stem_of(file) in PELVIS]
            images.append(
                SourceImage(
                    files=(scan,),
                    format="nifti",
                    patient=PurePosixPath(folder).name,
                    study=folder,
                    choice={"sequence": "unknown", "pelvis": shown},
                    masks=tuple(middle or visible),
                )
            )
    return images, rejections


def _is_segmentation(folder: str, file: str) -> bool:
    return str(PurePosixPath(file).parent) == f"{folder}/segmentations"


def _is_pelvic(folder: str, file: str) -> bool:
    return _is_segmentation(folder, file) and is_nifti(file) and stem_of(file) in PELVIS + MUSCLES
