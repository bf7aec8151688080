"""Whose an image is that has no header, or no id in it: by the folder that it lies in."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from data_modules.ingest.concealing import UID
from data_modules.ingest.images import SourceImage

UNKNOWN = "its folder holds images of several patients of the label CSV, and {}: give it a row, or leave it out"


class FolderPatients:
    """The patients of the label CSV whose images lie in each folder below the source, and so whose the others are.

    An image without a header belongs to the patient that its name starts with where the CSV has her. Otherwise the
    nearest folder counts that is called after a patient, by more than a number, or in or below which images are
    described: it is that patient's whose they all are. In a folder in which the described images start with their
    patients' names, the names of the others count, too, unless the folder is called after its only patient, or others'
    folders hold the name as well (``T1``). A DICOM series without a PatientID has no name that could count.

    Args:
        images: What was found.
        owners: Patients of the CSV by position in ``images``, of images that a row names or whose header is known.
        known: All patients of the CSV.
    """

    def __init__(self, images: Sequence[SourceImage], owners: Mapping[int, set[str]], known: set[str]) -> None:
        self._known = known
        self._within: dict[str, set[str]] = defaultdict(set)
        self._beside: dict[str, set[tuple[str, str]]] = defaultdict(set)  # names and patients of images right there
        for position, patients in owners.items():
            image = images[position]
            for folder in {folder for file in image.files for folder in _folders(PurePosixPath(file).parent)}:
                self._within[folder] |= patients
            if is_nameless(image):
                self._beside[place_of(image)] |= {(name_of(image), patient) for patient in patients}
        self._names = {patient for image in images for _, patient in _named(place_of(image))}
        self._only_in: dict[str, set[str]] = defaultdict(set)  # by name, the patients whose own folders hold it
        for image in images:
            name = name_of(image) if is_nameless(image) else ""
            for folder, patient in _named(place_of(image)):
                if patient in known and (patient == name or not patient.isdecimal()):
                    self._within[folder].add(patient)
        for image in filter(is_nameless, images):
            if len(patients := self._within.get(place_of(image), set())) == 1:
                self._only_in[name_of(image)] |= patients

    def holds_described(self, folder: str) -> bool:
        """Tells whether images of patients of the CSV lie in a folder or below it."""
        return folder in self._within

    def is_called_after(self, image: SourceImage, patient: str) -> bool:
        """Tells whether an image without a header or id lies in a folder that is called after its patient."""
        unnamed = is_nameless(image) or has_no_id(image)
        return unnamed and any(found == patient for _, found in _named(place_of(image)))

    def has_called_after(self, patient: str) -> bool:
        """Tells whether a folder of images is called after a patient, if only by a number."""
        return patient in self._names

    def has_beside(self, image: SourceImage, patient: str) -> bool:
        """Tells whether another image without a header, right in the same folder, is known to be a patient's."""
        return any(found == patient for _, found in self._beside.get(place_of(image), ()))

    def patient_of(self, image: SourceImage) -> str | None:
        """Returns the patient of an image without a header or id; empty: nobody of the CSV; None: one of several."""
        name, place = name_of(image) if is_nameless(image) else "", place_of(image)
        if name in self._known and not name.isdecimal():  # a number may be the place in a row
            return name
        folder = next((folder for folder in _folders(PurePosixPath(place)) if folder in self._within), None)
        if folder is None:
            return ""
        patients = self._within[folder]
        if name in patients:
            return name
        if name and folder == place and self._names_count(folder, name):
            return ""
        if len(patients) == 1:
            return next(iter(patients))
        return None if folder == place else ""

    def _names_count(self, folder: str, name: str) -> bool:
        """Whether the names in a folder start with patients."""
        pairs, patients = self._beside.get(folder, set()), self._within[folder]
        if patients == {patient_of_name(folder)} or len(self._only_in.get(name, ())) > 1:
            return False
        return bool(pairs) and all(start == patient for start, patient in pairs)


def patients_of_folders(images: Iterable[SourceImage], known: set[str]) -> dict[str, str]:
    """Returns whose the images right in a folder are where most folders hold a file of one name (``a/T2``, ``b/T2``).

    Such a name tells nothing, and the folder is the patient's. It is one that is found in more than half of the folders
    with images without a header, and in more folders than these hold different names: of ``T1/anna`` and ``T2/anna``,
    beside as many others, the name tells and the folder does not.

    Args:
        images: What was found.
        known: All patients of the CSV; a name of theirs tells, as one does that a folder above has, too.

    Returns:
        Patients by folder, for those that hold such a name: what the nearest folder is called that is not itself called
        as in most of them (``sub-01`` of ``sub-01/anat``); its path where that is a number alone, or several folders
        are called so.
    """
    names: dict[str, set[str]] = defaultdict(set)
    for image in filter(is_nameless, images):
        if (place := place_of(image)) != ".":
            names[place].add(name_of(image))
    called = {place: {patient for _, patient in _named(place)} for place in names}
    alike = {
        name
        for name, places in _holders(names).items()
        if name not in known
        and not any(name in called[place] for place in places)
        and len(places) > max(len(names) / 2, len(set[str]().union(*(names[place] for place in places))))
    }
    places = [place for place, inside in names.items() if inside & alike]
    below = _holders({place: called[place] for place in places})
    paths = _holders({folder: {patient} for place in places for folder, patient in _named(place)})
    patients = {}
    for place in places:
        distinct = (
            (folder, patient)
            for folder, patient in _named(place)
            if len(paths[patient]) == 1 or len(below[patient]) <= len(places) / 2
        )
        folder, patient = next(distinct, (place, ""))
        tells = len(paths[patient]) == 1 and not patient.isdecimal()
        patients[place] = patient if tells else f"{folder}/"
    return patients


def _holders(held: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """By what is held, what holds it."""
    holders: dict[str, set[str]] = defaultdict(set)
    for holder, inside in held.items():
        for each in inside:
            holders[each].add(holder)
    return holders


def patient_of_name(file: str) -> str:
    """Returns the patient that a file's or folder's name starts with: what comes before the first ``_`` or ``.``."""
    return re.split(r"[_.]", PurePosixPath(file).name)[0].strip()


def is_nameless(image: SourceImage) -> bool:
    """Tells whether nothing but the name of an image's file says whose it is."""
    return not image.series and image.patient == name_of(image)


def has_no_id(image: SourceImage) -> bool:
    """Tells whether the header of a DICOM series names no patient, so that the UID of its study stands for one."""
    return bool(image.series) and re.fullmatch(UID, image.patient) is not None


def name_of(image: SourceImage) -> str:
    """Returns the patient that the name of an image's file starts with, or of its folder for pictures."""
    folder = PurePosixPath(image.files[0]).parent.as_posix()
    return patient_of_name(folder if image.format == "frames" and folder != "." else image.files[0])


def place_of(image: SourceImage) -> str:
    """Returns the folder that holds an image, relative to the source; of pictures, the one that holds their folder."""
    folder = PurePosixPath(image.files[0]).parent
    return (folder.parent if image.format == "frames" else folder).as_posix()


def _named(place: str) -> Iterator[tuple[str, str]]:
    """A folder and those above it, each with the patient that its name starts with."""
    return ((folder, patient_of_name(folder)) for folder in _folders(PurePosixPath(place)))


def _folders(folder: PurePosixPath) -> Iterator[str]:
    """A folder and those above it, without the source itself."""
    inner: Iterable[PurePosixPath] = (folder, *folder.parents)
    return (each.as_posix() for each in inner if each != PurePosixPath("."))
