"""Pelvic MRI volumes of a cohort."""

from data_modules.cohort_module import CohortDataModule


class MRIDataModule(CohortDataModule):
    """Serves MRI: ``image`` is float32 (B, 1, D, H, W) in [0, 1], its axes left, inferior, posterior ("LIP")."""

    modality = "mri"
