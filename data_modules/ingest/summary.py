"""What an ingest tells when it has finished."""

from dataclasses import dataclass
from pathlib import Path

from data_modules.cohort import Modality


@dataclass(frozen=True)
class IngestSummary:
    """What became of a source folder; as text, a few lines to print.

    Attributes:
        modality: ``"mri"`` or ``"tvus"``.
        cases: In the manifest.
        patients: Of these cases.
        labelled: Cases with a label.
        obliterated: Cases with label 1.
        kept: Cases that an earlier run had stored already.
        rejected: Entries of rejected.csv for this modality and set.
        defects: Those of them with which something is wrong.
        reasons: Why the defects were left out, and how often.
        account: How many images were used by which rule, and how many left out and why.
        duplicates: Pairs of cases of different patients that show the same image.
        ignored_columns: Columns of the label CSV that are not covariates.
        rejected_file: Where what was left out is listed.
    """

    modality: Modality
    cases: int
    patients: int
    labelled: int
    obliterated: int
    kept: int
    rejected: int
    defects: int
    reasons: dict[str, int]
    account: dict[str, int]
    duplicates: int
    ignored_columns: tuple[str, ...]
    rejected_file: Path

    def __str__(self) -> str:
        text = (
            f"{self.cases} cases of {self.patients} patients, {self.labelled} labelled, {self.obliterated} obliterated"
        )
        text += f"; {self.kept} were stored already" if self.kept else ""
        text += f"; {self.rejected} left out, see {self.rejected_file}" if self.rejected else ""
        if self.ignored_columns:
            text += f"; columns that are no covariates: {', '.join(self.ignored_columns)}"
        for what, n in self.account.items():
            text += f"\n  {n:6} {what}"
        for reason, n in self.reasons.items():
            text += f"\n  {n:6} defective: {reason}"
        if self.duplicates:
            text += f"\n  {self.duplicates:6} near duplicates under different patients, kept in one fold: look at them"
        return text
