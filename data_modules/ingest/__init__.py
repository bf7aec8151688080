"""Hospital files into a cohort: found, matched with labels, checked, brought to one grid, de-identified, stored."""

from data_modules.ingest.pipeline import ingest_mri, ingest_tvus
from data_modules.ingest.summary import IngestSummary

__all__ = ["IngestSummary", "ingest_mri", "ingest_tvus"]
