import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_modules.cohort import Modality, read_folds, read_manifest
from data_modules.dealing import check_dealing
from data_modules.duplicates import describe_content, read_duplicates
from data_modules.errors import InputError
from data_modules.ingest.images import Rejection, describe_files
from data_modules.ingest.labels import describe_row
from data_modules.ingest.manifests import read_rejected, read_rows, set_of, write_manifests, write_rejected
from data_modules.ingest.pseudonyms import Pseudonyms
from data_modules.store import write_array


class KilledError(Exception):
    pass


def patients(*numbers: int) -> dict[str, float]:
    """Patients p000 ... with label 1 for every third."""
    return {f"p{number:03d}": float(number % 3 == 0) for number in numbers}


def write(
    cohort: Path,
    modality: Modality,
    labels: dict[str, float],
    given: dict[str, int] | None = None,
    copies: dict[str, str] | None = None,
    n_folds: int = 3,
    seed: int = 0,
    public_set: str = "",
    **order: dict[str, str],
) -> int:
    """Stores a case of noise a patient, or that of the patient of whom she is a copy, and writes the manifests."""
    rows = []
    for patient, label in labels.items():
        shown = (copies or {}).get(patient, patient)
        array = np.random.default_rng([ord(letter) for letter in f"{modality}{shown}"]).random((6, 14, 14))
        case = f"{modality}-{public_set}-{patient}-1" if public_set else f"{modality}-{patient}-1"
        write_array(cohort / modality / f"{case}.npy", array, {"descriptor": describe_content(array)})
        rows.append({"case_id": case, "patient_id": patient, "path": f"{modality}/{case}.npy", "label": label})
    return write_manifests(
        cohort, modality, pd.DataFrame(rows), given or {}, n_folds, seed, public_set=public_set, **order
    )


def content(cohort: Path) -> dict[str, bytes]:
    return {path.relative_to(cohort).as_posix(): path.read_bytes() for path in cohort.rglob("*") if path.is_file()}


def folds(cohort: Path) -> dict[str, int]:
    return read_folds(cohort, "mri") | read_folds(cohort, "tvus")


def test_patients_keep_their_folds_when_others_come_and_go(tmp_path: Path) -> None:
    write(tmp_path, "mri", patients(*range(30)))
    before = folds(tmp_path)
    write(tmp_path, "tvus", patients(*range(20, 60)))
    write(tmp_path, "mri", patients(*range(10, 80)))
    after = folds(tmp_path)
    assert {patient: after[patient] for patient in after if patient in before} == {
        patient: fold for patient, fold in before.items() if patient >= "p010"
    }
    assert set(after) == set(patients(*range(10, 80)))
    write(tmp_path, "mri", patients(*range(80)))  # those who come back, to where they were
    assert folds(tmp_path) == {**before, **after}


def test_a_public_set_stands_beside_the_hospitals_cases_and_each_replaces_its_own_alone(tmp_path: Path) -> None:
    write(tmp_path, "mri", patients(*range(12)), given={"p001": 2})
    write(tmp_path, "mri", dict.fromkeys(patients(*range(100, 106)), np.nan), public_set="ut-endomri")
    write(tmp_path, "mri", dict.fromkeys(patients(*range(200, 204)), np.nan), public_set="umd")
    before = read_manifest(tmp_path, "mri")
    assert len(before) == 22
    assert before["label"].notna().sum() == 12
    write(tmp_path, "mri", dict.fromkeys(patients(*range(100, 103)), np.nan), public_set="ut-endomri")
    write(tmp_path, "mri", patients(*range(11)))  # and no given folds any more
    after = read_manifest(tmp_path, "mri").set_index("case_id")
    assert sorted(map(set_of, after.index)) == [""] * 11 + ["umd"] * 4 + ["ut-endomri"] * 3
    assert json.loads((tmp_path / "folds.json").read_text())["given"] == {}
    assert len(list((tmp_path / "mri").glob("*.npy"))) == 18
    assert after["fold"].equals(before.set_index("case_id")["fold"].loc[after.index])


def test_it_is_remembered_how_a_cohort_was_dealt(tmp_path: Path) -> None:
    write(tmp_path, "mri", patients(*range(9)), given={"p004": 2}, seed=5, n_folds=4)
    dealing = json.loads((tmp_path / "folds.json").read_text())
    assert (dealing["seed"], dealing["n_folds"], dealing["given"]) == (5, 4, {"mri": {"p004": 2}})
    assert dealing["folds"] == folds(tmp_path)
    assert dealing["moved"] == {}


@pytest.mark.parametrize(("option", "message"), [({"seed": 1}, "--seed 1: .* --seed 0"), ({"n_folds": 5}, "--folds 5")])
def test_another_seed_or_number_of_folds_is_refused(tmp_path: Path, option: dict, message: str) -> None:
    write(tmp_path, "mri", dict.fromkeys(patients(1, 2), np.nan), n_folds=4, seed=9)  # nobody has a fold yet
    write(tmp_path, "mri", patients(*range(9)))
    before = content(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        write(tmp_path, "tvus", patients(*range(9)), **option)
    assert "choose another --out" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {name: data for name, data in content(tmp_path).items() if "tvus" not in name} == before
    with pytest.raises(InputError, match=message):
        check_dealing(tmp_path, **{"n_folds": 3, "seed": 0, **option})


def test_a_cohort_without_memory_goes_on_from_its_manifests(tmp_path: Path) -> None:
    write(tmp_path, "mri", patients(*range(9)))
    before = folds(tmp_path)
    (tmp_path / "folds.json").unlink()
    with pytest.raises(InputError, match="--folds 3"):
        write(tmp_path, "tvus", patients(*range(20)), n_folds=5)
    write(tmp_path, "tvus", patients(*range(20)), seed=7)
    assert read_folds(tmp_path, "mri") == before


def test_folds_edited_in_a_manifest_hold(tmp_path: Path) -> None:
    write(tmp_path, "mri", patients(*range(9)))
    table = pd.read_csv(tmp_path / "mri.csv")
    table.loc[table["patient_id"] == "p004", "fold"] = 2 - table["fold"][4] // 2
    table.to_csv(tmp_path / "mri.csv", index=False)
    edited = folds(tmp_path)
    write(tmp_path, "mri", patients(*range(9)))
    assert folds(tmp_path) == edited


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("fold", "Fold"), "has no column fold; it needs .*: add it, or remove it and ingest"),
        (lambda text: text.replace(",0,", ",free,"), "has label 'free'; use 0, 1 or empty"),
        (lambda text: text + '"', "not a readable CSV .*; remove it and ingest its files again"),
    ],
)
@pytest.mark.parametrize("suspended", [False, True])
def test_a_manifest_that_was_edited_wrongly_is_told_in_one_line(
    tmp_path: Path, change: Callable[[str], str], message: str, suspended: bool
) -> None:
    write(tmp_path, "mri", patients(*range(6)))
    file = tmp_path / "mri.csv"
    before = read_rows(tmp_path, "mri")
    assert before.columns.tolist() == ["case_id", "patient_id", "path", "label"]
    assert before["label"].tolist() == list(patients(*range(6)).values())
    file.write_text(change(file.read_text()))
    if suspended:  # as a kill leaves it
        file = file.rename(tmp_path / ".mri.csv.before")
    with pytest.raises(InputError, match=message) as caught:
        write(tmp_path, "mri", patients(*range(6)))
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_the_order_frees_the_folds_from_the_pseudonyms(tmp_path: Path) -> None:
    found = []
    for key in "ab":
        hospital = {f"{key}{patient}": patient for patient in patients(*range(20))}
        labels = {pseudonym: patients(*range(20))[patient] for pseudonym, patient in hospital.items()}
        write(tmp_path / key, "mri", labels, order=hospital)
        found.append({hospital[pseudonym]: fold for pseudonym, fold in folds(tmp_path / key).items()})
    assert found[0] == found[1]


def test_duplicates_are_listed_and_share_a_fold(tmp_path: Path) -> None:
    labels = {**patients(*range(30)), "p098": np.nan, "p099": np.nan}
    assert write(tmp_path, "mri", labels, copies={"p020": "p003", "p098": "p003"}) == 3
    pairs = read_duplicates(tmp_path)
    assert pairs[["modality", "case_a", "case_b"]].to_numpy().tolist() == [
        ["mri", "mri-p003-1", "mri-p020-1"],
        ["mri", "mri-p003-1", "mri-p098-1"],
        ["mri", "mri-p020-1", "mri-p098-1"],
    ]
    assert pairs["similarity"].eq(1).all()
    dealt = read_manifest(tmp_path, "mri").set_index("patient_id")["fold"]
    assert dealt[["p003", "p020", "p098"]].nunique(dropna=False) == 1
    assert dealt.isna().sum() == 1  # p099; p098 must not be lent to the folds that train without p003
    assert write(tmp_path, "mri", labels) == 0
    assert not (tmp_path / "duplicates.csv").exists()


@pytest.mark.parametrize(
    ("copies", "given"),
    [
        ({"p001": "p000"}, {"p000": 0, "p001": 1}),
        ({"p001": "p000", "p002": "p000"}, {"p001": 0, "p002": 2}),
    ],
)
def test_given_folds_that_part_duplicates_are_refused_by_name(
    tmp_path: Path, copies: dict[str, str], given: dict[str, int]
) -> None:
    first, second = given
    with pytest.raises(InputError) as caught:
        write(tmp_path, "mri", patients(*range(12)), given, copies, order={"p001": "HOSP0001"})
    for expected in (f"cases mri-{first}-1 and mri-{second}-1", "similarity 1.00", "HOSP0001", "the same fold"):
        assert expected in str(caught.value)
    assert not (tmp_path / "mri.csv").exists()
    write(tmp_path, "mri", patients(*range(12)), dict.fromkeys(given, 1), copies)
    assert {folds(tmp_path)[patient] for patient in (*copies, "p000")} == {1}


def test_a_given_fold_leads_the_unlabelled_who_share_the_image(tmp_path: Path) -> None:
    labels = {**patients(*range(9)), "p020": np.nan, "p021": np.nan, "p022": np.nan}
    write(tmp_path, "mri", labels, given={"p020": 2, "p022": 0}, copies={"p021": "p020"})
    dealt = read_manifest(tmp_path, "mri").set_index("patient_id")["fold"]
    assert dealt[["p020", "p021", "p022"]].tolist() == [2, 2, 0]


def test_given_folds_that_meet_through_a_third_patient_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "tvus", patients(*range(12)), given={"p002": 2}, copies={"p002": "p001"})
    with pytest.raises(InputError, match="show the same image"):
        write(tmp_path, "mri", patients(*range(12)), given={"p000": 0}, copies={"p001": "p000"})


def test_modalities_that_give_a_patient_two_folds_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "mri", patients(*range(9)), given={"p000": 0})
    with pytest.raises(InputError, match="label CSVs of both modalities: patient p000 is in folds 0 and 1"):
        write(tmp_path, "tvus", patients(*range(9)), given={"p000": 1})


def test_patients_found_to_share_an_image_meet_in_one_fold_and_it_is_told(tmp_path: Path) -> None:
    write(tmp_path, "mri", patients(*range(30)))
    before = folds(tmp_path)
    other = next(patient for patient in before if before[patient] != before["p000"])
    write(tmp_path, "tvus", patients(*range(30)), copies={other: "p000"})
    after = folds(tmp_path)
    assert after == read_folds(tmp_path, "mri")
    (moved,) = [patient for patient in before if before[patient] != after[patient]]
    assert moved in {"p000", other}
    assert after["p000"] == after[other]
    assert json.loads((tmp_path / "folds.json").read_text())["moved"] == {moved: [before[moved], after[moved]]}


def test_a_kill_at_any_moment_leaves_what_the_next_run_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step that changes a file is a moment; the run adds patients, moves some, and gives a fold."""
    labels = {**patients(*range(5, 25)), **dict.fromkeys(patients(50, 51), np.nan)}
    copies = {f"p{number:03d}": f"p{number - 1:03d}" for number in range(6, 14, 2)} | {"p051": "p050"}

    def again(cohort: Path) -> None:
        write(cohort, "mri", labels, given={"p010": 2}, copies=copies)

    write(tmp_path / "start", "mri", patients(*range(15)), given={"p001": 1})
    write(tmp_path / "start", "tvus", {**patients(*range(15, 30)), "p050": 1.0}, copies={"p029": "p028"})
    write(tmp_path / "start", "mri", dict.fromkeys(patients(60, 61), np.nan), public_set="umd")
    again(shutil.copytree(tmp_path / "start", tmp_path / "whole"))
    expected = content(tmp_path / "whole")
    assert json.loads(expected["folds.json"])["moved"]
    moment, survived = 0, False
    while not survived:
        cohort = shutil.copytree(tmp_path / "start", tmp_path / str(moment))
        left = [moment]

        def killed(method: Callable, left: list[int] = left) -> Callable:
            def step(path: Path, *args: object, **options: object) -> object:
                if path.name.endswith((".npy", ".json")) and path.parent.name == "mri":
                    return method(path, *args, **options)
                if left[0] == 0:
                    raise KilledError
                left[0] -= 1
                return method(path, *args, **options)

            return step

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", killed(Path.replace))
            patch.setattr(Path, "unlink", killed(Path.unlink))
            try:
                again(cohort)
                survived = True
            except KilledError:
                (cohort / ".mri.csv.123").write_bytes(b"half")
        again(cohort)
        assert content(cohort) == expected, moment
        moment += 1
    assert moment > 5


def test_short_ids_are_taken_out_of_names_and_errors_and_not_of_our_own_words(tmp_path: Path) -> None:
    pseudonyms = Pseudonyms(b"a key for tests, long enough")
    conceal = pseudonyms.concealer(
        {name: name for name in ("1", "2", "3", "row", "files", "Roe", "slices", "ValueError")}
    )
    labels = Path("Roe_1.csv")
    rejections = [
        Rejection(describe_row(labels, 2), "rows 1, 2 disagree"),
        Rejection(f"{describe_row(labels, 3)}: a/2.nii", "its label is no label: use 1 (obliterated)"),
        Rejection(describe_files(("1/IM1", "1/IM2", "1/IM3", "1/IM4")), "too few slices (3)"),
        Rejection("row 3/1.nii", "cannot be read", "ValueError: in\nfile 1.nii"),
    ]
    write_rejected(tmp_path, "mri", rejections, conceal, labels.name)
    one, two, three, row, roe, error = map(pseudonyms.patient, ("1", "2", "3", "row", "Roe", "ValueError"))
    assert {(found["source"], found["reason"]) for found in read_rejected(tmp_path)} == {
        (f"{roe}_{one}.csv row 2", "rows 1, 2 disagree"),
        (f"{roe}_{one}.csv row 3: a/{two}.nii", "its label is no label: use 1 (obliterated)"),
        (f"{one}/IM1 and 3 more files", "too few slices (3)"),
        (f"{row} {three}/{one}.nii", f"cannot be read ({error}: in file {one}.nii)"),
    }


def test_an_ingest_that_changes_nothing_leaves_the_times(tmp_path: Path) -> None:
    """What make built on a manifest is then up to date."""
    mri, tvus = (tmp_path / f"{modality}.csv" for modality in ("mri", "tvus"))
    write(tmp_path, "mri", patients(*range(12)))
    write(tmp_path, "tvus", patients(*range(6, 18)))
    later = mri.stat().st_mtime + 1000  # than the arrays, which are written anew each time
    for file in (mri, tvus):
        os.utime(file, (later, later))
    write(tmp_path, "tvus", patients(*range(6, 18)))
    write(tmp_path, "mri", patients(*range(12)))
    assert mri.stat().st_mtime == tvus.stat().st_mtime == later
    write(tmp_path, "mri", patients(*range(13)))
    assert mri.stat().st_mtime < later
    array = tmp_path / "tvus" / "tvus-p006-1.npy"
    os.utime(tvus, (later - 2000, later - 2000))
    write(tmp_path, "tvus", patients(*range(6, 18)))
    assert tvus.stat().st_mtime >= array.stat().st_mtime, "an image was stored anew"
