"""Who a patient is stays in the hospital: planted everywhere it can stand, it is found nowhere in what is written."""

import base64
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from data_modules.cohort import read_manifest
from data_modules.ingest import ingest_tvus

ROOT = Path(__file__).parents[3]

FAMILY, GIVEN, PHYSICIAN = "Quenneville", "Odalys", "Zwetschgenhuber"
NUMBER, BIRTH, ACCESSION = "HX7719", "19830417", "ACC5550"
SECRETS = (FAMILY, GIVEN, PHYSICIAN, NUMBER, BIRTH, "1983-04-17", "17.04.1983", ACCESSION, "20210704")
SIZE = (96, 128)


def plant(dataset: Dataset, number: int) -> None:
    """Names in the text attributes of patient and study, in a sequence and in a private tag."""
    dataset.PatientName, dataset.OtherPatientNames = f"{FAMILY}^{GIVEN}", f"{GIVEN} {FAMILY}"
    dataset.PatientID, dataset.AccessionNumber = f"{NUMBER}{number:02d}", f"{ACCESSION}{number:02d}"
    dataset.PatientBirthDate, dataset.StudyDate = BIRTH, "20210704"
    dataset.ReferringPhysicianName = dataset.OperatorsName = f"{PHYSICIAN}^A"
    dataset.InstitutionName, dataset.StationName = f"{PHYSICIAN} Hospital", FAMILY
    for keyword in ("StudyDescription", "PatientComments", "ImageComments", "ProtocolName", "PatientAddress"):
        setattr(dataset, keyword, f"{GIVEN} {FAMILY} {BIRTH} {ACCESSION}")
    dataset.ManufacturerModelName = f"Scanner of {FAMILY}"
    item = Dataset()
    item.AccessionNumber, item.RequestedProcedureDescription = f"{ACCESSION}{number:02d}", f"MRI of {FAMILY}"
    dataset.RequestAttributesSequence = Sequence([item])
    dataset.private_block(0x0029, FAMILY, create=True).add_new(0x01, "LO", f"{GIVEN} {NUMBER}")


def replant(file: Path, number: int, description: str) -> None:
    dataset = pydicom.dcmread(file)
    plant(dataset, number)
    dataset.SeriesDescription = description
    dataset.save_as(file)


def burn_in(frames: np.ndarray) -> np.ndarray:
    """Name, number and a line of an ECG that runs, all outside the sector."""
    burnt = frames.copy()
    for index, frame in enumerate(burnt):
        cv2.putText(frame, f"{FAMILY} {GIVEN}", (2, 9), cv2.FONT_HERSHEY_PLAIN, 0.6, 220)
        cv2.putText(frame, f"{NUMBER} {BIRTH}", (2, 94), cv2.FONT_HERSHEY_PLAIN, 0.6, 220)
        cv2.circle(frame, (4 + 4 * index, 80), 1, 255, -1)
    return burnt


@pytest.fixture
def clips() -> list[np.ndarray]:
    """A moving texture within a fan, uint8 (20, 96, 128) each."""
    rng = np.random.default_rng(0)
    fan = np.zeros(SIZE, np.uint8)
    cv2.ellipse(fan, (64, 14), (60, 60), 0, 35, 145, 255, -1)
    found = []
    for _ in range(9):
        texture = cv2.GaussianBlur(rng.integers(0, 255, (96, 200)).astype(np.uint8), (0, 0), 2)
        texture = cv2.normalize(texture, None, 20, 235, cv2.NORM_MINMAX)
        found.append(np.stack([np.where(fan, texture[:, 3 * t : 3 * t + 128], 0) for t in range(20)]).astype(np.uint8))
    return found


@pytest.fixture
def hospital(
    tmp_path: Path,
    write_series: Callable[..., list[Path]],
    write_cine: Callable[..., Path],
    write_avi: Callable[..., Path],
    clips: list[np.ndarray],
) -> Callable[[Callable[[np.ndarray], np.ndarray]], Path]:
    def write(marked: Callable[[np.ndarray], np.ndarray]) -> Path:
        source = tmp_path / f"{FAMILY}_export_{marked.__name__}"
        rng = np.random.default_rng(1)
        for number in range(9):
            name = f"{FAMILY}_{GIVEN}_{NUMBER}{number:02d}_{BIRTH}"
            volume = np.stack([cv2.GaussianBlur(plane, (0, 0), 2) for plane in rng.random((12, 40, 36)) * 2000])
            if number % 3:
                folder = source / "mri" / name / f"{ACCESSION}{number:02d}"
                for file in write_series(folder, volume.astype(np.uint16), patient="x"):
                    replant(file, number, f"T2 sag {FAMILY}")
            else:
                image = nib.Nifti1Image(volume.astype(np.int16), np.diag([4.0, 2.0, 2.0, 1.0]))
                for field in ("descrip", "db_name", "aux_file", "intent_name"):
                    image.header[field] = FAMILY[: image.header[field].dtype.itemsize]
                (source / "mri").mkdir(parents=True, exist_ok=True)
                nib.save(image, source / "mri" / f"{NUMBER}{number:02d}_{FAMILY}_{GIVEN}.nii.gz")
            frames = marked(clips[number])
            if number % 3 == 0:
                write_avi(source / "tvus" / f"{NUMBER}{number:02d}_{FAMILY}.avi", frames)
            elif number % 3 == 1:
                file = write_cine(source / "tvus" / f"{name}.dcm", frames)
                replant(file, number, FAMILY)
            else:
                folder = source / "tvus" / f"{NUMBER}{number:02d}_{FAMILY}_{GIVEN}"
                folder.mkdir(parents=True)
                for index, frame in enumerate(frames):
                    cv2.imwrite(str(folder / f"{FAMILY}{index}.png"), frame)
        for modality in ("mri", "tvus"):
            rows = [f"{NUMBER}{n:02d},{n % 2},{GIVEN} {FAMILY},17.04.1983,{ACCESSION}{n:02d}" for n in range(9)]
            (source / modality / "labels.csv").write_text(
                "\n".join(["patient_id,label,name,birth date,accession", *rows, f"{NUMBER}99,1,{FAMILY},,"])
            )
            (source / modality / f"{NUMBER}98_{FAMILY}.{'nii.gz' if modality == 'mri' else 'mp4'}").write_text(FAMILY)
        return source

    return write


def forms(secret: str) -> list[bytes]:
    """What a text looks like in a file: as it is, in capitals, in 16 bits, and in base64 at each of three offsets."""
    text = secret.encode()
    encoded = [
        base64.b64encode(b"\0" * shift + text)[start : (shift + len(text)) * 8 // 6]
        for shift, start in enumerate((0, 2, 3))
    ]
    return [text, text.upper(), text.lower(), secret.encode("utf-16-le"), *encoded]


def poddistill(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "import sys; from poddistill.cli import main; sys.exit(main())", *arguments]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environment = {**inherited, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_what_is_planted_is_found_nowhere(hospital: Callable[..., Path], tmp_path: Path) -> None:
    source, folder = hospital(burn_in), tmp_path / "written"
    folder.mkdir()
    (tmp_path / "source").symlink_to(source)
    output = []
    for modality in ("mri", "tvus"):
        sizes = ("--shape", "8", "16", "16", "--folds", "3")
        result = poddistill(folder, "ingest", modality, f"../source/{modality}", "--out", "cohort", *sizes)
        assert result.returncode == 1  # two things are wrong with it, see below
        assert "9 cases of 9 patients, 9 labelled, 4 obliterated; 2 left out" in result.stdout
        output += [result.stdout, result.stderr]
    patients = [set(read_manifest(folder / "cohort", modality)["patient_id"]) for modality in ("mri", "tvus")]
    assert patients[0] == patients[1]
    settings = [
        *("--config", str(ROOT / "experiments/pod/demo.yaml"), "--config", str(ROOT / "experiments/pod/teacher.yaml")),
        *("--cohort", "cohort", "--run", "run", "--trainer.accelerator", "cpu", "--trainer.max_epochs", "1"),
        *(
            "--profile.teacher_width",
            "4",
            "--trainer.limit_train_batches",
            "1",
            "--profile.teacher_validate_every",
            "1",
        ),
    ]
    result = poddistill(folder, "fit", *settings)
    assert result.returncode == 0, result.stderr
    written = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    del written["cohort.key"]
    assert any(name.endswith(".wandb") for name in written)
    assert "run/predictions.csv" in written
    written["output"] = "".join([*output, result.stdout, result.stderr]).encode()
    for name, data in written.items():
        for secret in SECRETS:
            assert not any(form in data or form in name.encode() for form in forms(secret)), (name, secret)


def test_what_is_burnt_in_beside_the_sector_is_blanked(hospital: Callable[..., Path], tmp_path: Path) -> None:
    """The stored clips are those of a machine that burns nothing in."""

    def plain(frames: np.ndarray) -> np.ndarray:
        return frames

    stored = []
    for number, marked in enumerate((burn_in, plain)):
        out = tmp_path / str(number) / "cohort"
        out.parent.mkdir()
        out.with_name("cohort.key").write_text("a key for tests, long enough\n")
        ingest_tvus(hospital(marked) / "tvus", out, shape=(8, 48, 64), folds=3, workers=1)
        stored.append({path: np.load(out / path).astype(float) for path in read_manifest(out, "tvus")["path"]})
    assert stored[0].keys() == stored[1].keys()
    for path, clip in stored[0].items():
        assert np.abs(clip - stored[1][path]).mean() < 4, path
