import base64
import html
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import median_abs_deviation

from data_modules.cohort import assign_folds, write_manifest
from data_modules.duplicates import COLUMNS, describe_content, write_duplicates
from data_modules.errors import InputError
from data_modules.inspection import write_report
from data_modules.inspection_outliers import MEASURES, find_outliers, measure_cases, robust_z
from data_modules.inspection_tables import group_rejections
from data_modules.store import read_record, write_array

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
WRITING = "pixels hold writing outside the ultrasound region; the stored frames do not"


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<(style|[^>]*)>", " ", page.split("</style>")[-1])))


def pictures_of(page: str) -> dict[str, Image.Image]:
    """The pictures on the page by their alternative texts."""
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)"[^>]*? alt="([^"]+)">', page)
    return {html.unescape(alt): Image.open(io.BytesIO(base64.b64decode(data))) for data, alt in found}


def change(cohort: Path, case: str, array: np.ndarray | None = None, **entries: dict) -> None:
    """Replaces an array of the cohort, and entries of its record."""
    path = cohort / case.split("-")[0] / f"{case}.npy"
    record = read_record(path) or {}
    array = np.load(path) if array is None else array
    for name, entry in entries.items():
        record[name] = {**record.get(name, {}), **entry} if isinstance(entry, dict) else entry
    write_array(path, array, {**record, "descriptor": describe_content(array)})


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """60 volumes of two scanners, 20 of them unlabelled, and 30 clips; nothing in it is unusual."""
    cohort = tmp_path / "cohort"
    rng = np.random.default_rng(0)
    anatomy = rng.random((8, 24, 20))
    tables = {}
    for modality, n in (("mri", 60), ("tvus", 30)):
        rows = []
        for number in range(n):
            case = f"{modality}-p{number + 100 * (modality == 'tvus'):03d}-1"
            values = 0.6 * anatomy + 0.4 * rng.random(anatomy.shape)
            array = values.astype(np.float16) if modality == "mri" else (255 * values).astype(np.uint8)
            second = number % 3 == 0
            record: dict = {"source": {"format": "DICOM", "manufacturer": "ACME", "model": "B" if second else "A"}}
            record["source"]["site"] = "site-3f2a" if second else "site-0b77"
            if modality == "mri":
                spacing = [5.0, 0.9, 0.9] if second else [4.0, 0.6, 0.6]
                record["original"] = {"orientation": "LIP", "spacing": spacing, "shape": [24, 320, 300]}
                record["stored"] = {"shape": list(array.shape), "spacing": [4.0, 1.0, 2.0]}
            else:
                record["original"] = {"size": [480, 640], "frames": 60 + number, "duration_s": 2 + number / 30}
                record["stored"] = {"shape": list(array.shape)}
            path = f"{modality}/{case}.npy"
            write_array(cohort / path, array, {**record, "descriptor": describe_content(array)})
            label = np.nan if modality == "mri" and number >= 40 else float(number % 4 == 0)
            rows.append({"case_id": case, "patient_id": case.split("-")[1], "path": path, "label": label})
        tables[modality] = pd.DataFrame(rows)
    folds = assign_folds(tables)
    for modality, table in tables.items():
        write_manifest(cohort, modality, table.assign(fold=table["patient_id"].map(folds), age=30.0))
    return cohort


def test_counts_are_by_label_fold_site_and_scanner(cohort: Path) -> None:
    text = text_of(write_report(cohort).read_text())
    for expected in (
        "patients 90 MRI cases 60 TVUS cases 30 patients with both 0 near duplicates 0 warnings 0 left out 0",
        "MRI: 60 cases of 60 patients",
        "fold 1 = POD obliterated 0 = POD free unlabelled all share of 1 0 ",
        "none 0 0 20 20 – all 10 30 20 60 25%",
        "site-3f2a 4 10 6 20 29%",
        "ACME A 6 20 14 40 23%",
        "8×24×20 60",
        "Covariates: age",
        "no case stands out",
        "None found: no two patients show the same image",
        "Nothing was left out",
    ):
        assert expected in text


def test_a_cohort_of_both_modalities_tells_who_has_both(write_cohort: Callable[..., Path]) -> None:
    cohort = write_cohort()
    (cohort / "rejected.csv").write_text("modality,source,reason\nmri,<b>x</b>.dcm,a localiser\n")
    page = write_report(cohort).read_text()
    assert "patients with both 20" in text_of(page)
    assert "a localiser" in page
    assert "<b>x</b>" not in page  # escaped


def test_the_page_needs_no_other_file_and_every_picture_has_a_text(cohort: Path) -> None:
    page = write_report(cohort).read_text()
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "//" not in re.sub(r"base64,[^\"]*", "", page)
    assert all(re.search(r' alt="[^"]+"', image) for image in re.findall(r"<img[^>]*>", page))
    assert len(re.findall(r"<table", page)) == len(re.findall(r"<thead", page))
    alts = list(pictures_of(page))
    assert "Histogram of spacing left-right of 60 cases: least 4, median 4, most 5 mm" in alts
    assert sum(alt.startswith("Six frames of tvus-") for alt in alts) == 4
    assert {re.sub(r" mri-p\d+-1", "", alt) for alt in alts if "Middle slice" in alt} == {
        "Middle slice of, 1 = POD obliterated",
        "Middle slice of, 0 = POD free",
        "Middle slice of, unlabelled",
    }


def test_what_is_shown_is_the_middle_plane_in_its_proportions(cohort: Path) -> None:
    page = write_report(cohort).read_text()
    case = "mri-p000-1"
    shown = np.asarray(pictures_of(page)[f"Middle slice of {case}, 1 = POD obliterated"])
    np.testing.assert_array_equal(shown, np.round(np.load(cohort / "mri" / f"{case}.npy")[4].astype(np.float32) * 255))
    width, height = re.search(rf'width="(\d+)" height="(\d+)" alt="Middle slice of {case}', page).groups()  # type: ignore[union-attr]
    assert int(height) / int(width) == pytest.approx(24 * 1.0 / (20 * 2.0))
    clip = np.load(cohort / "tvus" / "tvus-p100-1.npy")
    strip = np.asarray(pictures_of(page)["Six frames of tvus-p100-1, 1 = POD obliterated"])
    np.testing.assert_array_equal(strip[:, :20], clip[0])
    np.testing.assert_array_equal(strip[:, -20:], clip[-1])


def test_unusual_cases_come_first_with_the_reason(cohort: Path) -> None:
    change(cohort, "mri-p004-1", original={"spacing": [12.0, 0.6, 0.6]})
    change(cohort, "mri-p005-1", np.load(cohort / "mri" / "mri-p005-1.npy")[:, ::-1])
    change(cohort, "mri-p007-1", (0.2 * np.load(cohort / "mri" / "mri-p007-1.npy")).astype(np.float16))
    change(cohort, "tvus-p111-1", original={"frames": 1220, "duration_s": 61.0})
    page = write_report(cohort).read_text()
    first = text_of(page.split('<section id="duplicates"')[0])
    assert "MRI: 3 unusual cases" in first
    assert "TVUS: 1 unusual case " in first
    reasons = dict(re.findall(r"((?:mri|tvus)-p\d+-1) (.*?)(?=mri-p|tvus-p|TVUS:|$)", first))
    assert "spacing left-right 12 mm (median 4 mm)" in reasons["mri-p004-1"]
    assert "difference from the mean image" in reasons["mri-p005-1"]
    assert "mean intensity" in reasons["mri-p007-1"]
    assert "frames 1,220" in reasons["tvus-p111-1"]
    assert "duration 61 s" in reasons["tvus-p111-1"]
    assert len(reasons) == 4
    assert page.index('id="first"') < page.index('id="MRI"')


def test_of_many_unusual_cases_the_furthest_are_shown(cohort: Path) -> None:
    table = pd.DataFrame({name: np.full(400, np.nan) for name in MEASURES}).assign(frames=60.0)
    table.loc[:14, "frames"] = 1000.0 + 300 * np.arange(15)  # each one by itself
    outliers = find_outliers(table)
    assert [outlier.position for outlier in outliers] == list(range(14, -1, -1))
    assert find_outliers(table[:7]) == []  # too few to tell


def test_z_scores_are_robust_and_leave_a_second_scanner_alone() -> None:
    rng = np.random.default_rng(0)
    values = pd.Series(np.r_[rng.normal(0.5, 0.1, 400), 1.4, np.nan])
    known = values.dropna()
    expected = (values - known.median()).abs() / median_abs_deviation(known, scale="normal")
    found = robust_z(values, MEASURES["mean intensity"])
    rare = found > 0
    np.testing.assert_allclose(found[rare], expected[rare], rtol=1e-5)
    assert found[400] > 6
    assert found[401] == 0
    spacing = pd.Series([4.0] * 300 + [5.0] * 100 + [9.0])
    found = robust_z(spacing, MEASURES["spacing left-right"])
    assert found[:400].max() == 0
    assert found[400] == pytest.approx(np.log(9 / 4) / 0.1)
    one_sided = robust_z(pd.Series([0.5] * 100 + [0.1, 0.9]), MEASURES["difference from the mean image"])
    assert one_sided[100] == 0
    assert one_sided[101] > 3.5


def test_geometry_is_measured_along_the_patients_axes(cohort: Path) -> None:
    record = {"original": {"orientation": "ASR", "spacing": [0.5, 0.6, 4.0], "shape": [400, 300, 20]}}
    row = measure_cases(cohort, ["mri/mri-p000-1.npy"], [record]).iloc[0]
    assert row["spacing left-right"] == 4.0
    assert row["spacing front-back"] == 0.5
    assert row["voxels head-foot"] == 300
    assert row["field of view head-foot"] == 180
    assert row[["frames", "rows", "difference from the mean image"]].isna().all()


def test_near_duplicates_are_shown_side_by_side(cohort: Path) -> None:
    rows = [
        ("mri", "mri-p001-1", "p001", "mri-p009-1", "p009", 0.84),
        ("tvus", "tvus-p100-1", "p100", "tvus-p129-1", "p129", 0.97),
        ("tvus", "tvus-p100-1", "p100", "tvus-gone-1", "gone", 0.99),
    ]
    write_duplicates(cohort, pd.DataFrame(rows, columns=list(COLUMNS)))
    for modality in ("mri", "tvus"):
        table = pd.read_csv(cohort / f"{modality}.csv")
        table.loc[table["label"].notna(), "fold"] = 1
        table.astype({"label": "Int64", "fold": "Int64"}).to_csv(cohort / f"{modality}.csv", index=False)
    dealing = {"seed": 0, "n_folds": 5, "moved": {"p009": [3, 1]}}
    (cohort / "folds.json").write_text(json.dumps(dealing))
    page = write_report(cohort).read_text()
    section = page.split('<section id="duplicates">')[1].split("</section>")[0]
    pairs = section.split('<div class="pair">')[1:]
    assert [re.findall(r"similarity ([\d.]+)", pair)[0] for pair in pairs] == ["0.97", "0.84"]
    assert list(pictures_of(pairs[1])) == ["Middle of mri-p001-1", "Middle of mri-p009-1"]
    assert "p009: from fold 3 to fold 1" in text_of(section)
    assert "Near duplicates: 3 " in text_of(section)


def test_warnings_are_counted_with_their_cases(cohort: Path) -> None:
    for number in range(100, 110):
        change(cohort, f"tvus-p{number}-1", warnings=[WRITING])
    change(cohort, "tvus-p102-1", warnings=[WRITING, WRITING, "the frame time is missing: 50 ms assumed"])
    text = text_of(write_report(cohort).read_text())
    assert "Warnings: 11 " in text
    shown = ", ".join(f"tvus-p{number}-1" for number in range(100, 106))
    assert f"TVUS {WRITING} 10 {shown} and 4 more" in text
    assert "the frame time is missing: 50 ms assumed 1 tvus-p102-1" in text


def test_what_was_left_out_is_grouped_by_reason() -> None:
    rows = [
        *({"modality": "mri", "source": f"f{n}", "reason": f"slices are missing ({n} mm)"} for n in range(5)),
        *({"modality": "mri", "source": f"l{n}", "reason": "a localiser"} for n in range(7)),
        {"modality": "tvus", "source": "labels.csv", "reason": "row 3 names no file"},
        {"modality": "tvus", "source": "labels.csv", "reason": "row 14 names no file"},
    ]
    groups = group_rejections(rows, {"mri": "MRI", "tvus": "TVUS"})
    assert [(group.modality, group.text, group.n) for group in groups] == [
        ("MRI", "a localiser", 7),
        ("MRI", "slices are missing", 5),
        ("TVUS", "row N names no file", 2),
    ]
    assert groups[0].examples == ("l0", "l1", "l2")
    assert groups[1].examples[0] == "f0: slices are missing (0 mm)"


def test_one_modality_without_labels_and_with_old_records_will_do(tmp_path: Path) -> None:
    rows = []
    for number in range(9):
        case = f"mri-p{number}-1"
        write_array(tmp_path / "mri" / f"{case}.npy", np.full((4, 6, 8), number / 9, np.float16), {})
        rows.append({"case_id": case, "patient_id": f"p{number}", "path": f"mri/{case}.npy", "label": np.nan})
    (tmp_path / "mri" / "mri-p0-1.json").unlink()
    write_manifest(tmp_path, "mri", pd.DataFrame(rows).assign(fold=pd.NA))
    text = text_of(write_report(tmp_path).read_text())
    assert "MRI: 9 cases of 9 patients" in text
    assert "none 0 0 9 9 –" in text
    assert "Original geometry Not recorded." in text
    assert "Not looked for: the records hold no descriptors" in text
    assert "TVUS" not in text
    assert "site" not in text


def test_a_folder_that_is_no_cohort_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds neither mri\.csv nor tvus\.csv"):
        write_report(tmp_path)


def browse(page: Path, folder: Path) -> tuple[str, str]:
    """The page's content after loading in a browser, and what the browser logged."""
    options = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    options += " --disable-component-update --disable-sync --enable-logging=stderr --window-size=1200,900"
    command = [str(BROWSER), *options.split(), f"--user-data-dir={folder}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


@pytest.mark.skipif(BROWSER is None, reason="needs chromium or google-chrome on the PATH")
def test_a_browser_shows_the_page_whole_on_desktop_and_phone(cohort: Path, tmp_path: Path) -> None:
    change(cohort, "mri-p004-1", original={"spacing": [12.0, 0.6, 0.6]})
    change(cohort, "tvus-p103-1", warnings=[WRITING])
    change(cohort, "mri-p010-1", source={"manufacturer": "A maker with a rather long name", "model": "and model 3.0T"})
    pair = ("mri", "mri-p041-1", "p041", "mri-p050-1", "p050", 0.84)
    write_duplicates(cohort, pd.DataFrame([pair], columns=list(COLUMNS)))
    (cohort / "rejected.csv").write_text(f"modality,source,reason\nmri,{'a_long_name_' * 9}.dcm,a localiser\n")
    report = write_report(cohort).read_text()
    measure = (
        "const w = this.contentWindow, d = w.document, root = d.documentElement; this.dataset.found = JSON.stringify({"
        "width: w.innerWidth, hidden: root.scrollWidth - root.clientWidth,"
        "headings: [...d.querySelectorAll('h2')].map(e => e.innerText),"
        "images: d.images.length, broken: [...d.images].filter(i => !i.complete || !i.naturalWidth).length,"
        "wide: [...d.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1).length,"
        "requests: w.performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'))})"
    )
    frames = [
        f'<iframe width="{width}" height="800" srcdoc="{html.escape(report)}" onload="{measure}"></iframe>'
        for width in (400, 1200)  # a browser's own window is at least 500 wide
    ]
    page = tmp_path / "frames.html"
    page.write_text(f"<!doctype html><body>{''.join(frames)}</body>")
    content, log = browse(page, tmp_path / "profile")
    found = [json.loads(html.unescape(text)) for text in re.findall(r'data-found="([^"]*)"', content)]
    assert [shown["width"] for shown in found] == [400, 1200]
    for shown in found:
        assert shown["hidden"] == 0  # no scrolling to the side
        assert shown["wide"] == 0
        assert shown["broken"] == 0
        assert shown["images"] == report.count("<img ")
        assert shown["requests"] == []
        assert shown["headings"] == [
            "Look at these first",
            "Near duplicates: 1",
            "Warnings: 1",
            "MRI: 60 cases of 60 patients",
            "TVUS: 30 cases of 30 patients",
            "Left out: 1",
        ]
    assert "CONSOLE" not in log
