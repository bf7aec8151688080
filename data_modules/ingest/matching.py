"""Which image is which patient's, what label it has, and which one of a study is used."""

import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from data_modules.ingest.folders import (
    UNKNOWN,
    FolderPatients,
    has_no_id,
    is_nameless,
    patient_of_name,
    patients_of_folders,
    place_of,
)
from data_modules.ingest.images import Rejection, SourceImage
from data_modules.ingest.labels import LabelRow, describe_row

NAMED = "another series of the study is used, which the labels name"
DISPUTED = "another series of the study is given to several patients"
SHARED_ID = "its PatientID stands for several patients of the label CSV: add a row with path"
SHARED_NAME = "the start of its name stands for several patients of the label CSV: give it a row, or leave it out"

Study = str | tuple[str, str]
"""Of DICOM its UID, of NIfTI the folder and the patient, otherwise the file."""


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
    patient, with her id in their header or at the start of their name, or of their folder's where they have neither.
    Images of no row are unlabelled, and belong to the patient of a row if that row describes another image with the
    same patient id in its header, or in the folder of one without a header or id (see `FolderPatients`); such an image
    is rejected where several patients share the folder and it has the name of none. Where rows give the same images to
    one patient and disagree about the label, it is unknown; what they give to several patients is left out. From a
    DICOM study, from the NIfTI files of a patient of the labels in one folder, and from a row's folder, one MRI volume
    is chosen; ultrasound clips are all used. A row whose folder holds several patients, or volumes of several studies,
    is rejected, and so is a folder of pictures of several patients.

    Args:
        source: The source folder.
        labels: The label CSV, whose folder paths start from.
        images: What was found.
        rows: The CSV's rows.
        one_a_study: Whether to choose.

    Attributes:
        matched: The images to use.
        rejections: Images and rows that are left out.
        account: How often an image was used, and passed over, and why.
    """

    def __init__(
        self, source: Path, labels: Path, images: Sequence[SourceImage], rows: Sequence[LabelRow], one_a_study: bool
    ) -> None:
        self.matched: list[MatchedImage] = []
        self.rejections: list[Rejection] = []
        self.account: Counter[str] = Counter()
        self._source, self._labels, self._one_a_study = source, labels, one_a_study
        self._described: dict[int, LabelRow] = {}  # by position in images
        self._disputed: dict[int, set[str]] = {}  # by position, the patients to whom rows give it
        self._known = {row.patient for row in rows}
        self._images = self._without_mixed(images)
        by_path = _index(self._images)
        located = _grouped((self._relative(row.path), row) for row in rows if row.path)
        for path in sorted(located, key=lambda path: (-len(PurePosixPath(path).parts), located[path][0].line)):
            group = located[path]
            patients = {row.patient for row in group}
            if len(patients) > 1:
                self._leave_out(group, patients, by_path.get(path, []))
            else:
                self._match_path(self._united(group), path, by_path.get(path, []))
        by_patient = _grouped((row.patient, row) for row in rows if not row.path)
        self._match_patients({patient: self._united(group) for patient, group in by_patient.items()})

    def _without_mixed(self, images: Sequence[SourceImage]) -> list[SourceImage]:
        """The images without folders whose pictures the names give to several patients."""
        kept = []
        for image in images:
            if image.format == "frames" and len(_patients_by_name(map(patient_of_name, image.files), self._known)) > 1:
                reason = "its pictures start with the names of several patients: give each clip a folder of its own"
                self.rejections.append(Rejection(image.source, reason))
            else:
                kept.append(image)
        return kept

    def _united(self, group: Sequence[LabelRow]) -> LabelRow:
        """One row for those that describe the same images of a patient, whose label is unknown where they disagree."""
        first, *others = group
        if all(_same_label(first, other) for other in others):
            for other in others:
                self._reject_row(other, f"it repeats row {first.line}")
            return first
        for row in group:
            self._reject_row(row, f"rows {_lines(group)} describe the same images and disagree: their label is unknown")
        return replace(first, label=math.nan)

    def _leave_out(self, group: Sequence[LabelRow], patients: set[str], found: Iterable[int]) -> None:
        """Leaves out what rows give to several patients, for its patient's other images may be tested on."""
        reason = f"rows {_lines(group)} give the same images to several patients: none of them is used"
        for row in group:
            self._reject_row(row, reason)
        for position in found:
            if not self._is_settled(position):
                self._disputed[position] = patients
                self.rejections.append(Rejection(self._images[position].source, reason))

    def _relative(self, path: str) -> str:
        """The row's path relative to the source folder, ``..`` in front where it leads out of it."""
        # Not resolved, for links in the source keep their names.
        relative = os.path.relpath(self._labels.parent.resolve() / path, self._source.resolve())
        return PurePosixPath(relative).as_posix()

    def _is_settled(self, position: int) -> bool:
        return position in self._described or position in self._disputed

    def _match_path(self, row: LabelRow, path: str, found: list[int]) -> None:
        free = [position for position in found if not self._is_settled(position)]
        if several := self._several([self._images[position] for position in free]):
            self._reject_row(row, f"it names a folder of several {several}: name one file or series")
        elif free:
            self._described |= dict.fromkeys(free, row)
            if not self._use([self._images[position] for position in free], row.patient, row):
                self._reject_row(row, "it names several images, each with an objection: name one of them")
        elif found:
            others = sorted({self._described[position].line for position in found if position in self._described})
            closer = f"row {', '.join(map(str, others))} describes" if others else "disputed rows describe"
            self._reject_row(row, f"{closer} all images there more closely")
        elif path.startswith("../"):
            self._reject_row(row, "it names a path outside the source folder")
        elif not (self._source / path).exists():
            self._reject_row(row, "it names a path that is not there")
        else:
            self._reject_row(row, "it names a path that holds no usable image")

    def _several(self, images: Sequence[SourceImage]) -> str:
        """What a row's images are of several of: patients, studies, or nothing."""
        dicom = [image for image in images if image.series]
        headers = {image.patient for image in dicom if not has_no_id(image)}
        names = _patients_by_name((image.patient for image in images if not image.series), self._known)
        if max(len(headers), len(names)) > 1:
            return "patients"
        studies = {image.study for image in dicom if not image.objection and image.study != image.series}
        return "studies" if self._one_a_study and len(studies) > 1 else ""

    def _match_patients(self, by_patient: Mapping[str, LabelRow]) -> None:
        owners: dict[str, set[str]] = defaultdict(set)
        for position, row in self._described.items():
            owners[self._images[position].patient].add(row.patient)
        for position, patients in self._disputed.items():
            if self._images[position].patient not in self._known:
                owners[self._images[position].patient] |= patients
        folders = FolderPatients(self._images, self._owned(owners), self._known)
        described_studies = {
            self._study_of(self._images[position], row.patient, folders) for position, row in self._described.items()
        }
        disputed_studies: set[Study] = {self._images[position].study for position in self._disputed}
        alike = patients_of_folders(self._images, self._known)
        studies: dict[tuple[str, Study], list[SourceImage]] = defaultdict(list)
        by_name = set()  # of the studies, those that a row without a path can describe
        for position, image in enumerate(self._images):
            if self._is_settled(position):
                continue
            patient, reason = _whose(image, owners, folders, alike)
            study = self._study_of(image, patient, folders)
            if self._one_a_study and study in described_studies:
                self._pass_over(image, NAMED)
            elif self._one_a_study and study in disputed_studies:
                self._pass_over(image, DISPUTED)
            elif reason:
                self.rejections.append(Rejection(image.source, reason))
            else:
                studies[patient, study].append(image)
                named = patient in (image.patient, *owners.get(image.patient, ()))
                if named or folders.is_called_after(image, patient):
                    by_name.add((patient, study))
        present = set()
        for (patient, study), members in studies.items():
            describable = (patient, study) in by_name
            if self._use(members, patient, by_patient.get(patient) if describable else None) and describable:
                present.add(patient)
        for patient, row in by_patient.items():
            if patient not in present:
                remedy = ": give the folder of that name as its path" if folders.has_called_after(patient) else ""
                self._reject_row(row, f"it names a patient of whom there is no usable image{remedy}")

    def _owned(self, owners: Mapping[str, set[str]]) -> dict[int, set[str]]:
        """The patients of the labels by position, of images that a row names or whose header has a known id."""
        owned = {position: {row.patient} for position, row in self._described.items()} | self._disputed
        for position, image in enumerate(self._images):
            if position not in owned and not is_nameless(image):
                patients = owners.get(image.patient, {image.patient} & self._known)
                owned |= {position: patients} if patients else {}
        return owned

    def _study_of(self, image: SourceImage, patient: str, folders: FolderPatients) -> Study:
        """What one volume is chosen from: for NIfTI of a patient of the labels, those of hers in one folder."""
        if image.format != "nifti" or not is_nameless(image) or patient not in self._known:
            return image.study
        named = patient == image.patient or folders.is_called_after(image, patient)
        hers = named or folders.has_beside(image, patient)
        return (place_of(image), patient) if hers else image.study

    def _use(self, images: Sequence[SourceImage], patient: str, row: LabelRow | None) -> bool:
        """Uses the images of a study or a row, of volumes the best; tells whether there was one to use."""
        named = row is not None and bool(row.path) and len(images) == 1  # then no objection counts
        used = False
        chosen = list(images)
        if self._one_a_study:
            chosen = [max(images, key=lambda image: (not image.objection, image.preference))]  # the first of equals
        for image in images:
            if image.objection and not named:
                self._pass_over(image, image.objection)
            elif image not in chosen:
                rule, slices = chosen[0].choice.get("rule"), chosen[0].choice.get("slices")
                known = f" ({rule}, {slices} slices)" if slices else f" ({rule})" if rule else ""
                self._pass_over(image, f"another series of the study is used{known}", "another series is used")
            else:
                self.account[f"used as {image.choice.get('rule') or image.choice.get('sequence') or 'a clip'}"] += 1
                label, covariates = (row.label, row.covariates) if row else (math.nan, {})
                self.matched.append(MatchedImage(image, patient, label, covariates, len(images)))
                used = True
        return used

    def _pass_over(self, image: SourceImage, reason: str, summed_up_as: str = "") -> None:
        self.rejections.append(Rejection(image.source, reason, defect=False))
        self.account[f"left out: {summed_up_as or reason}"] += 1

    def _reject_row(self, row: LabelRow, reason: str) -> None:
        at = describe_row(self._labels, row.line)
        self.rejections.append(Rejection(f"{at}: {row.path}" if row.path else at, reason))


def _whose(
    image: SourceImage, owners: Mapping[str, set[str]], folders: FolderPatients, alike: Mapping[str, str]
) -> tuple[str, str]:
    """The patient of an image that no row names, or why it cannot be told."""
    nameless = is_nameless(image)
    by_folder = nameless or (has_no_id(image) and image.patient not in owners)
    of_folder = folders.patient_of(image) if by_folder else ""
    if of_folder is None:
        return "", UNKNOWN.format("its name starts with none of them" if nameless else "it has no PatientID")
    if nameless and not of_folder and place_of(image) in alike:
        return alike[place_of(image)], ""
    of_image = {of_folder} if of_folder else owners.get(image.patient, {image.patient})
    if len(of_image) == 1:
        return next(iter(of_image)), ""
    if image.series:
        return "", SHARED_ID
    if place_of(image) == "." or folders.holds_described(place_of(image)):
        return "", SHARED_NAME
    return image.study, ""  # names are alike in all folders, and nobody of the labels has images in this one


def _grouped(rows: Iterable[tuple[str, LabelRow]]) -> dict[str, list[LabelRow]]:
    groups: dict[str, list[LabelRow]] = defaultdict(list)
    for key, row in rows:
        groups[key].append(row)
    return groups


def _lines(group: Sequence[LabelRow]) -> str:
    return ", ".join(str(row.line) for row in group)


def _same_label(one: LabelRow, other: LabelRow) -> bool:
    return one.label == other.label or (math.isnan(one.label) and math.isnan(other.label))


def _patients_by_name(names: Iterable[str], known: set[str]) -> set[str]:
    """Those of several images' or pictures' names who are known; a number of one alone may be its place in a row."""
    return {name for name, n in Counter(names).items() if name in known and (n > 1 or not name.isdecimal())}


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
