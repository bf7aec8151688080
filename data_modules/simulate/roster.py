"""Who is examined: patients, their true labels, and the labels that are written."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from data_modules.simulate.settings import SimulationSettings
from data_modules.simulate.streams import Stream, generator

UNLABELLED, CLIPS = 1_000_000, 2_000_000  # first patient index of the groups; labelled MRI start at 0


@dataclass(frozen=True)
class Examination:
    """One patient in one modality.

    Attributes:
        modality: "mri" or "tvus".
        patient: Patient index; the same index in both modalities is the same woman.
        label: The truth: 1 = POD obliterated, 0 = free.
        written_label: What the hospital wrote down; None = nothing.
    """

    modality: Literal["mri", "tvus"]
    patient: int
    label: int
    written_label: int | None


def examinations(settings: SimulationSettings) -> list[Examination]:
    """List everyone in the cohort.

    Each group holds its prevalence exactly (rounded, and one of either class where it can), in random order. The
    groups' patient indices do not depend on each other's size, so adding unlabelled patients changes nobody else.

    Args:
        settings: Cohort settings.

    Returns:
        Labelled MRI, unlabelled MRI, then TVUS.
    """
    labelled = _true_labels(settings, 0, settings.n_labelled)
    unlabelled = _true_labels(settings, UNLABELLED, settings.n_unlabelled)
    both = labelled[: settings.n_both]
    clips = both + _true_labels(settings, CLIPS, settings.n_clips - settings.n_both)
    clip_patients = [*range(settings.n_both), *range(CLIPS, CLIPS + settings.n_clips - settings.n_both)]
    return [
        *(Examination("mri", i, label, _written(settings, i, label)) for i, label in enumerate(labelled)),
        *(Examination("mri", UNLABELLED + i, label, None) for i, label in enumerate(unlabelled)),
        *(
            Examination("tvus", i, label, _written(settings, i, label))
            for i, label in zip(clip_patients, clips, strict=True)
        ),
    ]


def _true_labels(settings: SimulationSettings, group: int, count: int) -> list[int]:
    positives = round(count * settings.prevalence)
    if count > 1:
        positives = min(max(positives, 1), count - 1)
    labels = np.arange(count) < positives
    # Groups sit at the far end of the LABELS stream's index, where no patient is.
    order = generator(settings.seed, 2**63 + group, Stream.LABELS).permutation(count)
    return [int(label) for label in labels[order]]


def _written(settings: SimulationSettings, patient: int, label: int) -> int:
    flipped = generator(settings.seed, patient, Stream.LABELS).uniform() < settings.label_noise
    return 1 - label if flipped else label
