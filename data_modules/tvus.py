"""Transvaginal ultrasound clips of a cohort."""

from data_modules.cohort_module import CohortDataModule


class TVUSDataModule(CohortDataModule):
    """Serves TVUS clips: ``image`` is float32 (B, 1, T, H, W) in [0, 1], frames evenly spaced in time."""

    modality = "tvus"
