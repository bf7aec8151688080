from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_modules.cohort import assign_folds, count_folds, read_manifest, splits
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


def test_a_missing_manifest_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="poddistill ingest tvus SRC"):
        read_manifest(tmp_path, "tvus")


def test_less_than_three_folds_are_refused(write_cohort: WriteCohort) -> None:
    with pytest.raises(InputError, match="at least 3"):
        assign_folds({"mri": patients(4, 1.0)}, n_folds=2)
