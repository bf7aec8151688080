from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_modules.cohort import assign_folds, count_folds, read_folds, read_manifest, splits
from data_modules.errors import InputError

WriteCohort = Callable[..., Path]


def patients(n: int, label: float, start: int = 0) -> pd.DataFrame:
    return pd.DataFrame({"patient_id": [f"p{i}" for i in range(start, start + n)], "label": label})


def test_folds_are_stratified_by_label_and_modality_to_within_one_patient() -> None:
    mri = pd.concat([patients(53, 1.0), patients(111, 0.0, 100), patients(40, np.nan, 300)])
    tvus = pd.concat([patients(30, 1.0, 40), patients(61, 0.0, 500)])
    folds = assign_folds({"mri": mri, "tvus": tvus}, n_folds=5, seed=3)
    counts = Counter(folds.dropna())
    assert max(counts.values()) - min(counts.values()) <= 1
    for table, label in ((mri, 1.0), (mri, 0.0), (tvus, 1.0), (tvus, 0.0)):
        in_fold = Counter(folds[table["patient_id"][table["label"] == label]])
        assert len(in_fold) == 5
        assert max(in_fold.values()) - min(in_fold.values()) <= 2  # a class of a modality is up to two strata


def test_patients_without_a_label_in_either_modality_have_no_fold() -> None:
    folds = assign_folds({"mri": patients(10, np.nan), "tvus": patients(3, 1.0, 8)}, n_folds=3)
    assert set(folds.index[folds.isna()]) == {f"p{i}" for i in range(8)}  # p8 and p9 are labelled in TVUS


def test_folds_do_not_depend_on_row_order_but_on_the_seed() -> None:
    table = pd.concat([patients(40, 1.0), patients(80, 0.0, 100)], ignore_index=True)
    shuffled = table.sample(frac=1, random_state=0)
    first = assign_folds({"mri": table}, seed=0)
    assert first.equals(assign_folds({"mri": shuffled}, seed=0))
    assert not first.equals(assign_folds({"mri": table}, seed=1))


def test_a_new_patient_without_label_moves_nobody() -> None:
    table = pd.concat([patients(40, 1.0), patients(80, 0.0, 100)])
    with_more = pd.concat([table, patients(30, np.nan, 700)])
    before, after = assign_folds({"mri": table}), assign_folds({"mri": with_more})
    assert after[before.index].equals(before)


def test_patients_keep_their_fold_and_new_ones_fill_up_their_stratum() -> None:
    first = pd.concat([patients(13, 1.0), patients(37, 0.0, 100), patients(20, np.nan, 300)])
    before = assign_folds({"mri": first}, seed=2)
    grown = pd.concat([first, patients(9, 1.0, 20), patients(30, 0.0, 150)])
    clips = patients(17, 1.0, 600)
    after = assign_folds({"mri": grown, "tvus": clips}, seed=2, existing=before)
    dealt = before.dropna().index
    assert after[dealt].equals(before[dealt])
    assert after.drop(before.index).notna().all()
    for stratum in (grown[grown["label"] == 1], grown[grown["label"] == 0], clips):
        counts = Counter(after[stratum["patient_id"]])
        assert max(counts.values()) - min(counts.values()) <= 1
    counts = Counter(after.dropna())
    assert max(counts.values()) - min(counts.values()) <= 1


def test_a_new_patient_goes_where_her_stratum_is_smallest_then_where_the_fold_is() -> None:
    existing = {"p0": 0, "p1": 1, "p2": 2, "p3": 1, "p4": 2, "p5": 2}
    table = pd.concat([patients(3, 1.0), patients(3, 0.0, 3)])  # 0 in fold 1 once, in fold 2 twice
    folds = assign_folds({"mri": pd.concat([table, patients(1, 0.0, 9)])}, 3, existing=existing)
    assert folds["p9"] == 0
    folds = assign_folds({"mri": pd.concat([table, patients(1, 1.0, 9)])}, 3, existing=existing)
    assert folds["p9"] == 0  # once in each fold, and fold 0 is the smallest
    assert folds[list(existing)].to_dict() == existing


def test_the_first_label_of_a_patient_gives_her_a_fold_and_moves_nobody() -> None:
    table = pd.concat([patients(30, 0.0), patients(10, np.nan, 100)], ignore_index=True)
    before = assign_folds({"mri": table})
    table.loc[table["patient_id"] == "p104", "label"] = 1.0
    after = assign_folds({"mri": table}, existing=before)
    assert after.drop("p104").equals(before.drop("p104"))
    assert after["p104"] in range(5)


def test_the_order_by_the_hospitals_ids_frees_the_folds_from_the_pseudonyms() -> None:
    def dealt(key: str) -> dict[str, int]:
        table = pd.concat([patients(20, 1.0), patients(41, 0.0, 100)])
        hospital = {key + patient: patient for patient in table["patient_id"]}
        folds = assign_folds({"mri": table.assign(patient_id=key + table["patient_id"])}, order=hospital)
        return {hospital[patient]: fold for patient, fold in folds.items()}

    assert dealt("a") == dealt("z")


def test_a_group_gets_one_fold_with_its_unlabelled_members_and_the_rest_is_even() -> None:
    table = pd.concat([patients(20, 1.0), patients(40, 0.0, 100), patients(3, np.nan, 300)])
    groups = {"p0": "a", "p1": "a", "p100": "a", "p300": "a", "p301": "b", "p302": "b"}
    folds = assign_folds({"mri": table}, groups=groups)
    assert folds[["p0", "p1", "p100", "p300"]].nunique() == 1
    assert folds[["p301", "p302"]].isna().all()  # without any label in the group
    for label in (1.0, 0.0):
        counts = Counter(folds[table["patient_id"][table["label"] == label]])
        assert max(counts.values()) - min(counts.values()) <= 1


def test_a_group_follows_the_fold_of_most_of_its_members() -> None:
    table = patients(12, 1.0)
    groups = dict.fromkeys(["p0", "p1", "p2", "p3"], "p0")
    alone = assign_folds({"mri": table}, existing={"p2": 4}, groups=groups)
    assert alone[list(groups)].tolist() == [4] * 4
    most = assign_folds({"mri": table}, existing={"p0": 1, "p1": 3, "p2": 3}, groups=groups)
    assert most[list(groups)].tolist() == [3] * 4
    table.loc[[2, 3], "label"] = np.nan
    labelled = assign_folds({"mri": table}, existing={"p0": 1, "p2": 3, "p3": 3}, groups=groups)
    assert labelled[list(groups)].tolist() == [1] * 4
    tie = [assign_folds({"mri": rows}, existing={"p0": 1, "p3": 2}, groups=groups) for rows in (table, table[::-1])]
    assert tie[0].equals(tie[1])
    assert tie[0][list(groups)].nunique() == 1


def test_splits_follow_the_rule_and_part_the_patients(write_cohort: WriteCohort) -> None:
    cohort = write_cohort()
    for fold in range(5):
        parts: dict[str, set[str]] = {}
        for modality in ("mri", "tvus"):
            manifest = read_manifest(cohort, modality)
            part = splits(manifest, fold, count_folds(cohort))
            expected = manifest["fold"].map({fold: "test", (fold + 1) % 5: "val"}).fillna("train")
            assert (part == expected.mask(manifest["fold"].isna(), "")).all()
            for name in ("train", "val", "test"):
                parts.setdefault(name, set()).update(manifest["patient_id"][part == name])
        assert not parts["train"] & parts["val"]
        assert not parts["train"] & parts["test"]
        assert not parts["val"] & parts["test"]
    with pytest.raises(InputError, match="fold 5: the cohort has folds 0 to 4"):
        splits(manifest, 5, 5)
    assert (splits(manifest, None, 5) == manifest["fold"].notna().map({True: "test", False: ""})).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns="label"), "no column label"),
        (lambda table: table.iloc[:0], "holds no case"),
        (lambda table: pd.concat([table, table.iloc[:1]]), "case_id mri-p000-1 occurs twice"),
        (lambda table: table.assign(label="2"), "row 2 has label 2; use 0, 1"),
        (lambda table: table.assign(label="yes"), "row 2 has label 'yes'"),
        (lambda table: table.assign(path="../secret.npy"), "leads out of the cohort"),
        (lambda table: table.assign(path="/etc/passwd"), "leads out of the cohort"),
        (lambda table: table.assign(path="mri/none.npy"), "names mri/none.npy, which is not there"),
        (lambda table: table.assign(fold="1.5"), "row 2 has fold 1.5"),
        (lambda table: table.assign(fold=""), "has a label but no fold"),
        (lambda table: table.assign(age="old"), "row 2 has age 'old'"),
        (lambda table: table.assign(patient_id="p000"), "patient p000 is in folds"),
        (lambda table: table.assign(fold=2), r"patient p0\d\d is in folds 2 and \d"),  # against the TVUS manifest
    ],
)
def test_a_bad_manifest_is_told_in_one_line(
    write_cohort: WriteCohort, change: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    cohort = write_cohort()
    file = cohort / "mri.csv"
    change(pd.read_csv(file, dtype=str, keep_default_na=False)).to_csv(file, index=False)
    with pytest.raises(InputError, match=message) as caught:
        read_manifest(cohort, "mri")
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_near_duplicates_in_two_folds_are_refused_by_name(write_cohort: WriteCohort) -> None:
    cohort = write_cohort()
    folds = read_manifest(cohort, "mri").set_index("patient_id")["fold"].dropna()
    same, other = folds.index[folds == folds["p000"]][1], folds.index[folds != folds["p000"]][0]
    header = "modality,case_a,patient_a,case_b,patient_b,similarity\n"
    (cohort / "duplicates.csv").write_text(f"{header}mri,mri-p000-1,p000,mri-{same}-1,{same},1.0\n")
    read_manifest(cohort, "mri")
    (cohort / "duplicates.csv").write_text(f"{header}mri,mri-p000-1,p000,mri-{other}-1,{other},0.93\n")
    with pytest.raises(InputError, match=rf"cases mri-p000-1 and mri-{other}-1 show the same image \(similarity 0.93"):
        read_manifest(cohort, "mri")


def test_folds_are_read_back_without_checking_the_store(write_cohort: WriteCohort) -> None:
    cohort = write_cohort()
    manifest = read_manifest(cohort, "mri").dropna(subset="fold")
    for file in (cohort / "mri").iterdir():
        file.unlink()
    assert read_folds(cohort, "mri") == dict(zip(manifest["patient_id"], manifest["fold"], strict=True))
    (cohort / "mri.csv").unlink()
    assert read_folds(cohort, "mri") == {}


def test_a_missing_manifest_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="poddistill ingest tvus SRC"):
        read_manifest(tmp_path, "tvus")


def test_less_than_three_folds_are_refused(write_cohort: WriteCohort) -> None:
    with pytest.raises(InputError, match="at least 3"):
        assign_folds({"mri": patients(4, 1.0)}, n_folds=2)
