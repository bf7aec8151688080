"""The cohort report."""

from pathlib import Path


def write_report(cohort: str | Path) -> Path:
    """Writes report.html."""
    return Path(cohort) / "report.html"
