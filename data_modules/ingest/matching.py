"""Which image is which patient's, what label it has, and which one of a study is used."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from data_modules.errors import InputError
from data_modules.ingest.images import Rejection, SourceImage
from data_modules.ingest.labels import LabelRow

NOT_CHOSEN = "another series of the study is used: what the labels name, else T2, sagittal, most slices, in this order"


@dataclass(frozen=True)
class MatchedImage:
    """An image that may become a case.

    Attributes:
        image: The image.
        patient: The patient's id, as the labels have it or else the files.
        label: 1.0 obliterated, 0.0 free, nan unlabelled.
        covariates: Numbers by name.
        alternatives: How many images it was chosen from.
    """

    image: SourceImage
    patient: str
    label: float = math.nan
    covariates: dict[str, float] = field(default_factory=dict)
    alternatives: int = 1


class Matching:
    """Matches the images of a source folder with the rows of its label CSV.

    A row with a path describes that file, or what lies in that folder; a row without one all other images of its
    patient. Images of no row are unlabelled, and belong to the patient of a row if that row describes another image
    with the same patient id in its header. From a DICOM study, and from a row's folder, one MRI volume is chosen;
    ultrasound clips are all used.

    Args:
        source: The source folder.
        labels: The label CSV, whose folder paths start from.
        images: What was found.
        rows: The CSV's rows.
        one_a_study: Whether to choose.

    Attributes:
        matched: The images to use.
        rejections: Images and rows that are left out.

    Raises:
        InputError: Two rows describe the same image and disagree.
    """

    def __init__(
        self, source: Path, labels: Path, images: Sequence[SourceImage], rows: Sequence[LabelRow], one_a_study: bool
    ) -> None:
        self.matched: list[MatchedImage] = []
        self.rejections: list[Rejection] = []
        self._source, self._labels, self._one_a_study = source, labels, one_a_study
        self._described: dict[int, LabelRow] = {}  # by position in images
        self._images = images
        by_path = _index(images)
        located = [(row, self._relative(row.path)) for row in rows if row.path]
        for row, path in sorted(located, key=lambda pair: (-len(PurePosixPath(pair[1]).parts), pair[0].line)):
            self._match_path(row, path, by_path.get(path, []))
        self._match_patients([row for row in rows if not row.path])

    def _relative(self, path: str) -> str:
        """The row's path relative to the source folder, ``..`` in front where it leads out of it."""
        full = (self._labels.parent / path).resolve()
        root = self._source.resolve()
        return full.relative_to(root).as_posix() if full.is_relative_to(root) else "../" + path

    def _match_path(self, row: LabelRow, path: str, found: list[int]) -> None:
        free = [position for position in found if position not in self._described]
        if free:
            self._described |= dict.fromkeys(free, row)
            self._use([self._images[position] for position in free], row.patient, row)
        elif found:
            self._check_agreement(self._described[found[0]], row)
            self._reject_row(row, f"row {row.line} describes the same as row {self._described[found[0]].line}")
        elif path.startswith("../"):
            self._reject_row(row, f"row {row.line} names a path outside the source folder")
        elif not (self._source / path).exists():
            self._reject_row(row, f"row {row.line} names a path that is not there")
        else:
            self._reject_row(row, f"row {row.line} names a path that holds no usable image")

    def _match_patients(self, rows: Sequence[LabelRow]) -> None:
        by_patient: dict[str, LabelRow] = {}
        for row in rows:
            if (first := by_patient.setdefault(row.patient, row)) is not row:
                self._check_agreement(first, row)
                self._reject_row(row, f"row {row.line} repeats row {first.line}")
        owners: dict[str, set[str]] = defaultdict(set)
        for position, row in self._described.items():
            owners[self._images[position].patient].add(row.patient)
        described_studies = {self._images[position].study for position in self._described}
        studies: dict[tuple[str, str], list[SourceImage]] = defaultdict(list)
        for position, image in enumerate(self._images):
            if position in self._described:
                continue
            if self._one_a_study and image.study in described_studies:
                self.rejections.append(Rejection(image.source, NOT_CHOSEN, defect=False))
                continue
            of_image = owners.get(image.patient, {image.patient})
            if len(of_image) == 1:
                studies[next(iter(of_image)), image.study].append(image)
            elif not image.series:  # the file names start alike, so they do not start with the patient
                studies[image.study, image.study].append(image)
            else:
                self.rejections.append(
                    Rejection(
                        image.source, "its PatientID stands for several patients of the label CSV: add a row with path"
                    )
                )
        for (patient, _), members in studies.items():
            self._use(members, patient, by_patient.get(patient))
        present = {patient for patient, _ in studies}
        for patient, row in by_patient.items():
            if patient not in present:
                self._reject_row(row, f"row {row.line} names a patient of whom there is no usable image")

    def _use(self, images: Sequence[SourceImage], patient: str, row: LabelRow | None) -> None:
        chosen = list(images)
        if self._one_a_study:
            chosen = [max(images, key=lambda image: (not image.objection, image.preference))]  # the first of equals
        for image in images:
            if image not in chosen:
                self.rejections.append(Rejection(image.source, NOT_CHOSEN, defect=False))
            elif image.objection and row is None:
                self.rejections.append(Rejection(image.source, image.objection, defect=False))
            elif row is None:
                self.matched.append(MatchedImage(image, patient, alternatives=len(images)))
            else:
                self.matched.append(MatchedImage(image, patient, row.label, row.covariates, len(images)))

    def _check_agreement(self, first: LabelRow, second: LabelRow) -> None:
        same = first.label == second.label or (math.isnan(first.label) and math.isnan(second.label))
        if first.patient != second.patient or not same:
            raise InputError(
                f"{self._labels}: rows {first.line} and {second.line} describe the same images and disagree; keep one"
            )

    def _reject_row(self, row: LabelRow, reason: str) -> None:
        self.rejections.append(Rejection(row.path or f"{self._labels.name} row {row.line}", reason))


def _index(images: Iterable[SourceImage]) -> dict[str, list[int]]:
    """Positions of images by each of their files and by every folder that holds all of them."""
    index: dict[str, list[int]] = defaultdict(list)
    for position, image in enumerate(images):
        files = dict.fromkeys(image.files)
        for file in files:
            index[file].append(position)
        folders = set.intersection(*({str(parent) for parent in PurePosixPath(file).parents} for file in files))
        for folder in folders:
            index[folder].append(position)
    return index
