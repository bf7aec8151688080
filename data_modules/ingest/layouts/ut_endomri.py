"""UT-EndoMRI (Zenodo 15750762): 124 women with endometriosis, near-axial T1 and T2, with and without fat suppression.

Cases are ``D1_MHS/D1-000/D1-000_T2.nii.gz`` and ``D2_TCPW/D2-000/...``. Names hold stray spaces, one mask of the third
rater is called ``ut_re3``, and masks do not tell on which sequence they were drawn: `find_middle` compares the grids.
"""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from data_modules.ingest.images import Rejection, SourceImage
from data_modules.ingest.layouts import group_by_case, is_nifti, stem_of
from data_modules.ingest.workers import Map

CASE = re.compile(r"\s*D[12]-\d+\s*", re.IGNORECASE)
SEQUENCES = ("t2", "t2fs", "t1fs", "t1")  # the first that a case has is used
MASK = re.compile(r"(ut|ov|em|cy|cds|pat)(_?re?\d)?")  # pat is in no description of the set


def find(source: Path, files: Sequence[str], over: Map) -> tuple[list[SourceImage], list[Rejection]]:
    """Finds one volume a case, T2 before T2FS, T1FS and T1; its masks of the uterus lead the crop."""
    cases, rejections = group_by_case(files, CASE)
    images = []
    for folder, members in cases.items():
        patient = re.sub(r"\s", "", PurePosixPath(folder).name)
        sequences: dict[str, str] = {}
        masks = []
        for file in members:
            kind = re.sub(r"^d[12]-\d+_?", "", stem_of(file))
            if not is_nifti(file):
                rejections.append(Rejection(file, "not part of the set", defect=False))
            elif kind.replace("_", "") in SEQUENCES:
                sequences.setdefault(kind.replace("_", ""), file)
            elif (mask := MASK.fullmatch(kind)) is None:
                rejections.append(Rejection(file, "neither a sequence nor a mask of the set"))
            elif mask[1] == "ut":
                masks.append(file)
        chosen = next((name for name in SEQUENCES if name in sequences), None)
        if chosen is None:
            rejections.append(Rejection(folder, "no T1, T1FS, T2 or T2FS volume in the case folder"))
            continue
        for name in sequences:
            if name != chosen:
                reason = "another sequence of the case is used: T2, else T2FS, T1FS, T1"
                rejections.append(Rejection(sequences[name], reason, defect=False))
        images.append(
            SourceImage(
                files=(sequences[chosen],),
                format="nifti",
                patient=patient,
                study=folder,
                choice={"sequence": chosen.upper(), "sequences_in_case": len(sequences)},
                masks=tuple(masks),
            )
        )
    return images, rejections
