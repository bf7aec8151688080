"""Identifiers in file names, in the forms that hospitals and file systems give them."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_modules.ingest import ingest_mri
from data_modules.ingest.concealing import Concealer, identifiers_in
from data_modules.ingest.dates import known_days

NAMES = {
    "7654321": "Roe^Jane",
    "98765": "M\u00fcller^\u00c4nne",
    "HX7719": "Strau\u00df^Berta-Sophie",
    "23": "Wu^Li",
    "A-12/34": "Goetz",
    "id-6": "\u738b^\u5c0f\u660e",
}


@pytest.fixture
def conceal() -> Concealer:
    """Of six patients, each shown as # and her number; and a birth and a study date."""
    identities = {part: patient for patient, name in NAMES.items() for part in identifiers_in(name)}
    identities |= {patient: patient for patient in NAMES} | dict.fromkeys(["19801231", "04.07.2021"], "id-6")
    numbers = {patient: f"#{number}" for number, patient in enumerate(NAMES)}
    return Concealer({identifier: numbers[patient] for identifier, patient in identities.items()})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("PAT7654321/MR7654321_0 7654321x", "PAT#0/MR#0_0 #0x"),
        ("k_0098765", "k_#1"),
        ("MRHX7719a hx-7719", "MR#2a hx-7719"),
        ("A-12/34 a_12_34 A1234x", "#4 #4 #4x"),
        ("RoeJane roejane JANEROE Roe2 RoeT2", "#0 #0 #0 #02 #0T2"),
        ("Wu_Li WuLi wuli Li,Wu", "#3_#3 #3 #3 #3,#3"),
        ("\u738b\u5c0f\u660e MR\u5c0f\u660e \u738b_t2", "#5 MR#5 #5_t2"),
        ("M\u00dcLLER_\u00c4nne muller_anne Mueller", "#1_#1 #1_#1 #1"),
        (unicodedata.normalize("NFD", "M\u00fcller_\u00c4nne.nii"), "#1_#1.nii"),
        ("Strauss strau\u00df BertaSophie", "#2 #2 #2"),
        ("G\u00f6tz", "#4"),
        ("a 1.2.840.10008.1.2 b", "a [removed] b"),
    ],
)
def test_names_and_numbers_are_found_in_other_forms(conceal: Concealer, text: str, shown: str) -> None:
    assert conceal(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "IM0023.dcm",
        "T2 sag 3 mm",
        "76543210 1987650 987651",
        "HX77190",
        "Lithium Suwu",
        "a 1.2.3 b",
        "12 13 14",
        "123456",
    ],
)
def test_what_is_somebody_elses_or_nobodys_stays(conceal: Concealer, text: str) -> None:
    assert conceal(text) == text


@pytest.mark.parametrize(
    "date",
    [
        *("31.12.1980", "31-12-1980", "1980-12-31", "12/31/1980", "31 12 80", "12_31_80", "80-12-31"),
        *("31121980", "12311980", "19801231", "311280", "801231", "123180", "4.7.21", "04.07.21", "20210704123000"),
        *("31dec1980", "31-Dec-80", "Dec 31, 1980", "December_31_1980", "31. Dezember 1980", "4 July 2021"),
    ],
)
def test_known_dates_are_found_in_every_order(conceal: Concealer, date: str) -> None:
    assert conceal(f"x_{date}_y") == "x_[removed]_y"
    assert conceal(f"MR_{date}a") == "MR_[removed]a"


def test_names_of_files_that_are_no_utf_8_are_read_as_latin_1(conceal: Concealer) -> None:
    assert conceal("M\udcfcller/T2 \udcc4nne_M\udcdcLLER") == "#1/T2 #1_#1"
    assert conceal("caf\udce9/T2 \udc81") == "caf\udce9/T2 \udc81"
    assert Concealer({"M\udcfcller": "#"})("M\udcfcller MUELLER M\u00fcller muller") == "# # # #"


@pytest.mark.parametrize("date", ["30.11.1999", "1999-11-30", "19991130", "30 Nov 1999"])
def test_what_can_be_nothing_but_a_date_is_taken_out_unknown(conceal: Concealer, date: str) -> None:
    assert conceal(f"x {date} y") == "x [removed] y"


def test_a_date_of_the_label_csv_is_known_whatever_its_order() -> None:
    assert (1983, 4, 17) in known_days("17 04 1983")
    assert {(1983, 4, 3), (1983, 3, 4), (83, 3, 4)} <= known_days("03 04 1983")
    assert (1983, 4, 17) in known_days("17 apr 83")
    assert not known_days("311280")
    assert not known_days("1 17 04 1983")


def test_rejected_series_are_listed_without_the_names_in_their_paths(
    tmp_path: Path, write_series: Callable[..., list[Path]], noise_volume: np.ndarray
) -> None:
    names = ["PAT7654321", "RoeJane", "Wu_Li", "Muller_Strauss", "study 31.12.1980", "scan 040721"]
    for number, name in enumerate(names):
        write_series(
            tmp_path / "source" / name,
            noise_volume[:3],
            patient="7654321",
            PatientName=["Roe^Jane", "Wu^Li", "M\u00fcller^Strau\u00df"][number % 3],
            SpecificCharacterSet="ISO_IR 192",
        )
    write_series(tmp_path / "source" / "good", noise_volume, patient="7654322")
    ingest_mri(tmp_path / "source", tmp_path / "cohort", shape=(8, 16, 16), workers=1)
    rejected = pd.read_csv(tmp_path / "cohort" / "rejected.csv")
    assert rejected["reason"].tolist() == ["too few slices (3): a volume needs at least 4"] * len(names)
    text = " ".join(rejected["source"]).lower()
    for part in ("7654321", "roe", "jane", "wu", "li_", "muller", "strauss", "1980", "0407"):
        assert part not in text
