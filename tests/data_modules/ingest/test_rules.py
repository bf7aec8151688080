"""Which series of a study is used, and rules of one's own."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from data_modules.errors import InputError
from data_modules.ingest.discovery import find_mri, list_files
from data_modules.ingest.images import SourceImage
from data_modules.ingest.rules import SeriesTraits, read_rules, weighting_of

WriteSeries = Callable[..., list[Path]]
AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
# Names of series as scanners of Siemens, GE and Philips give them, by weighting and objection.
NAMES = {
    ("T2", ""): [
        *["t2_tse_sag", "t2_spc_sag_p2_iso", "T2_TSE_SAG_part1", "t2_tse_sag_fast1", "T2_SAG_PAT1", "T2 sag set1"],
        *["t2_blade_sag_320_PAT2", "t2_sag_high_bandwidth", "headcoil T2 sag", "Sag T2 FRFSE", "SagT2 FRFSE"],
        *["SAGT2 FSE set1", "O-Ax FRFSE T2 post T1", "T2W_TSE_sag", "sT2W_TSE_SENSE", "T2-weighted sagittal"],
    ],
    ("T1", ""): [
        *["t1_vibe_dixon_tra_W", "t1_fl3d_starvibe_tra", "AX T1 FS +C", "AxT1 LAVA Flex", "T1W_mDIXON", "T1/T2 bTFE"],
    ],
    ("", ""): ["Ax T2* GRE", "Ax T2 star", "t2star_tra", "Sag CUBE", "T12-S1 sag", "sag part1 of 2"],
    ("T2", "a localiser"): ["t2_haste_loc", "HASTE_LOC_T2", "LOC_sag_T2"],
    ("", "a localiser"): ["localizer_haste", "3-plane Loc SSFSE", "3Plane_LOC", "SURVEY_BFFE"],
    ("", "a diffusion series"): [
        *["ep2d_diff_b50_800_tra_ADC", "RESOLVE_T2_ADC", "Ax DWI b800", "eADC (10^-6 mm2/s)", "isoADCmap"],
        *["sDWIBS_b1000", "dReg_ADC", "ep2d_TRACEW"],
    ],
}


def find(source: Path, rules: Path | None = None) -> list[SourceImage]:
    files, _ = list_files(source, source / "labels.csv")
    images, _, _ = find_mri(source, files, map, read_rules(rules))
    return images


@pytest.mark.parametrize(
    ("traits", "objection", "rule"),
    [
        (
            SeriesTraits("t2_tse_sag", "ORIGINAL\\PRIMARY\\M", weighting="T2", plane="sagittal", slices=24),
            "",
            "T2 sagittal",
        ),
        (SeriesTraits("T2 axial", weighting="T2", plane="axial"), "", "T2"),
        (SeriesTraits("t1 vibe sag", weighting="T1", plane="sagittal"), "", "sagittal"),
        (SeriesTraits("t1 axial", weighting="T1", plane="axial"), "", "any"),
        (SeriesTraits("3-plane localizer", weighting="T2", plane="sagittal"), "a localiser", "T2 sagittal"),
        (SeriesTraits("x", "ORIGINAL\\PRIMARY\\LOCALIZER"), "a localiser", "any"),
        (SeriesTraits("x", "DERIVED\\SECONDARY\\MPR"), "an image derived from others", "any"),
        (SeriesTraits("x", "DERIVED\\PRIMARY\\MPR"), "", "any"),
        (SeriesTraits("ep2d_diff_b1000"), "a diffusion series", "any"),
    ],
)
def test_the_shipped_rules_prefer_sagittal_t2(traits: SeriesTraits, objection: str, rule: str) -> None:
    rules = read_rules()
    assert rules.objection(traits) == objection
    assert rules.preferred(traits)[1] == rule


@pytest.mark.parametrize(
    ("description", "echo", "repetition", "weighting"),
    [
        ("t2_tse_sag", 0, 0, "T2"),
        ("AX T1 FS", 0, 0, "T1"),
        ("sag frfse", 100, 4000, "T2"),
        ("sag", 10, 500, "T1"),
        ("t2* gre", 0, 0, ""),
        ("DWI from T2", 80, 5000, ""),
        ("sag", 80, 500, ""),
        ("sag", 0, 0, ""),
    ],
)
def test_weighting_is_told_by_description_or_times(
    description: str, echo: float, repetition: float, weighting: str
) -> None:
    assert weighting_of(description, echo, repetition)[0] == weighting


@pytest.mark.parametrize(
    ("description", "weighting", "objection"),
    [(name, *expected) for expected, names in NAMES.items() for name in names],
)
def test_series_names_of_scanners_are_read_as_words(description: str, weighting: str, objection: str) -> None:
    assert weighting_of(description)[0] == weighting
    traits = SeriesTraits(description, weighting=weighting, plane="sagittal", slices=24)
    assert read_rules().objection(traits) == objection


def test_a_name_that_ends_in_t1_does_not_give_the_place_of_the_sagittal_t2_away(
    tmp_path: Path, write_series: WriteSeries, noise_volume: np.ndarray
) -> None:
    study = {"StudyInstanceUID": "1.2.3.4.5.6"}
    write_series(tmp_path / "sagittal", noise_volume, SeriesDescription="T2_TSE_SAG_part1", **study)
    write_series(tmp_path / "axial", noise_volume, AXIAL, SeriesDescription="T2_TSE_TRA", **study)
    write_series(tmp_path / "many", noise_volume.repeat(2, 0), SeriesDescription="t2_haste_loc", **study)
    best = max(find(tmp_path), key=lambda image: (not image.objection, image.preference))
    assert best.files[0].startswith("sagittal/")


def test_of_an_exported_study_the_series_of_the_first_rule_wins(
    tmp_path: Path, write_series: WriteSeries, noise_volume: np.ndarray
) -> None:
    """All series of a study in one folder, names mixed up, as a PACS exports them."""
    study = "1.2.3.4.5.6"
    common = {"StudyInstanceUID": study, "patient": "a"}
    for name, volume, options in (
        ("scout", noise_volume, {"SeriesDescription": "LOC 3 plane"}),
        ("ax", noise_volume, {"directions": AXIAL, "SeriesDescription": "T2 ax"}),
        ("few", noise_volume[:8], {"SeriesDescription": "T2 sag"}),
        ("many", noise_volume, {"SeriesDescription": "T2 sag"}),
        ("shot", noise_volume, {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}),
    ):
        for file in write_series(tmp_path / name, volume, **common, **options):
            file.rename(tmp_path / f"{file.name}{name}")
        (tmp_path / name).rmdir()
    images = find(tmp_path)
    best = max(images, key=lambda image: (not image.objection, image.preference))
    assert best.choice == {
        "rule": "T2 sagittal",
        "weighting": "T2",
        "plane": "sagittal",
        "slices": 12,
        "weighting_by": "description",
    }
    assert sorted(image.objection for image in images if image.objection) == [
        "a localiser",
        "an image derived from others",
    ]


@pytest.mark.parametrize("axes", ["RAS", "PIR", "LSA"])
def test_the_plane_of_a_nifti_file_is_read_from_its_header(tmp_path: Path, noise_volume: np.ndarray, axes: str) -> None:
    """However its axes run; the name says nothing of the plane."""
    for name, spacing in (("sagittal", (4.0, 1.0, 0.5)), ("axial", (0.5, 0.5, 6.0)), ("cube", (1.0, 1.0, 1.0))):
        image = nib.Nifti1Image(noise_volume.astype(np.int16), np.diag([*spacing, 1.0]))
        turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(axes))
        nib.save(image.as_reoriented(turn), tmp_path / f"{name}_T2.nii")
    (tmp_path / "damaged_T2.nii").write_bytes(b"no volume")
    images = {image.patient: image for image in find(tmp_path)}
    assert images["sagittal"].choice == {"rule": "T2 sagittal", "weighting": "T2", "plane": "sagittal", "slices": 12}
    assert images["sagittal"].preference == (4, 12, -1.0)
    assert images["axial"].choice == {"rule": "T2", "weighting": "T2", "plane": "axial", "slices": 36}
    planes = {"R": "sagittal", "L": "sagittal", "P": "coronal", "A": "coronal", "S": "axial", "I": "axial"}
    assert images["cube"].choice["plane"] == planes[axes[2]]  # of equal spacings the last axis counts
    assert "plane" not in images["damaged"].choice
    assert min(images.values(), key=lambda image: image.preference).patient == "damaged"


def test_rules_of_ones_own_replace_the_shipped_ones(
    tmp_path: Path, write_series: WriteSeries, noise_volume: np.ndarray
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "min_slices: 1\nprefer:\n"
        "  - {name: thin ACME axial, plane: axial, manufacturer: acme, min_slices: 5, max_gap: 4.5}\n"
    )
    source = tmp_path / "source"
    write_series(source / "one", noise_volume[:1], AXIAL)
    write_series(source / "axial", noise_volume, AXIAL)
    write_series(source / "thick", noise_volume, AXIAL, spacing=(6.0, 2.0, 2.0))
    write_series(source / "scout", noise_volume, AXIAL, SeriesDescription="scout")
    images = {image.files[0].split("/")[0]: image for image in find(source, rules)}
    assert {name: image.objection for name, image in images.items()} == {
        "axial": "",
        "one": "it fits none of the series rules",
        "thick": "it fits none of the series rules",
        "scout": "a localiser",  # what the file leaves out is as shipped
    }
    assert len(images["one"].files) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "has list; its keys are min_slices"),
        ("slices: 3", "has slices; its keys are min_slices"),
        ("prefer: T2", "prefer must be a list of rules"),
        ("prefer: [{plane: axial}]", "each with a name"),
        ("prefer: [{name: x, planes: axial}]", "prefer: x: unknown condition planes"),
        ("prefer: [{name: x, plane: oblique}]", "plane is 'oblique'; use sagittal or coronal or axial"),
        ("exclude: [{name: x, description: '('}]", "exclude: x: description is no regular expression"),
        ("exclude: [{name: x, description: 3}]", "is no regular expression"),
        ("min_slices: 0", "min_slices is 0; use a whole number from 1 up"),
        ("min_slices: [", "not a YAML file"),
        ("spacing_tolerance: much", "spacing_tolerance is 'much'; use a number from 0 up"),
    ],
)
def test_wrong_rules_are_told_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message.replace("(", r"\(")) as caught:
        read_rules(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)
