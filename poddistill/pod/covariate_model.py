"""A model of the covariates by itself, without any image: what a network that learns from such a model must beat."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from scipy.special import expit

from data_modules.mri import MRIDataModule
from data_modules.tvus import TVUSDataModule
from data_modules.unpaired import UnpairedDataModule
from poddistill.evaluation.runs import write_predictions
from poddistill.losses.covariates import fit_logistic


def predict_from_covariates(
    cohort: Path,
    covariates: Sequence[str],
    out: Path,
    fit_on: Literal["tvus-labels", "mri-labels"] = "tvus-labels",
    fold: int = 0,
    seed: int = 0,
    n_labelled: int | None = None,
    label_noise: float = 0.0,
    n_labelled_clips: int | None = None,
    n_unlabelled: int | None = None,
) -> Path:
    """Predicts the labelled validation and test volumes from covariates, and writes that as a run of its own.

        p_i = sigmoid(a + b . x_i)

    x_i are the covariates of patient i as `UnpairedDataModule.covariate_scores` gives them, of held-out patients too;
    a and b are those of `fit_logistic`, over the cases with any covariate. It is the model whose outputs
    `CovariateTargets` teaches with the same `fit_on`, so a student of that transfer is compared with what it was
    taught. The scale of the covariates is that of the training cases of both cohorts, whatever the model is fitted on.
    Validation and test labels enter nowhere. Ours.

    Args:
        cohort: The cohort folder.
        covariates: Columns of both manifests, at least one.
        out: The stage folder to write, such as ``runs/demo/seed0-fold0/covariates``.
        fit_on: The labels of the ultrasound clips of the training folds, or those of the MRI that are trained on.
        fold: The test fold.
        seed: Of the draw of labelled volumes, that of the students (`MRIDataModule`).
        n_labelled: Labelled volumes to train on; None: all. It matters to `mri-labels` alone.
        label_noise: Part of their labels that are wrong, likewise.
        n_labelled_clips: Labelled clips, drawn with the seed as for a teacher; None: all. It matters to `tvus-labels`.
        n_unlabelled: Volumes without a label that count for the scale, drawn likewise; None: all.

    Returns:
        The written ``predictions.csv``.

    Raises:
        InputError: The cohort, the fold or an option is wrong, a covariate is missing, or all labels are alike.
    """
    mri = MRIDataModule(
        str(cohort), fold, n_labelled=n_labelled, n_unlabelled=n_unlabelled, seed=seed, label_noise=label_noise
    )
    tvus = TVUSDataModule(str(cohort), fold, n_labelled=n_labelled_clips, seed=seed)
    data = UnpairedDataModule(mri, tvus, covariates=list(covariates))
    (mri if fit_on == "mri-labels" else tvus).require_labels()
    of_volumes, of_clips = data.covariate_scores(held_out=True)
    volumes_recorded, recorded = data.covariates_recorded()
    x, labels = of_clips, tvus.train_labels
    if fit_on == "mri-labels":
        trained = mri.manifest["split"].eq("train").to_numpy()
        x, labels, recorded = of_volumes[trained], mri.train_labels, volumes_recorded[trained]
    weights, intercept = fit_logistic(torch.from_numpy(x[recorded]), torch.from_numpy(labels[recorded]))
    rows = mri.labelled_rows("val", "test")
    logits = of_volumes[rows] @ weights.double().numpy() + intercept
    table = mri.manifest.iloc[rows][["case_id", "patient_id", "split", "label"]]
    return write_predictions(table.assign(probability=expit(logits)), out)
