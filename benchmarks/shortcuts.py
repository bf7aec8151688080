"""What simple readers make of a cohort's MRI: the ground on which a student has to stand.

    .venv/bin/python benchmarks/shortcuts.py cohorts/study-replicates/11 --labels 80

Readers are fitted on the training volumes of fold 0, all or a drawn number of them, as the students' are, and scored on
the held-out folds: the histogram of intensities, the best single voxel, the principal components of volumes four times
coarser, and the covariates, each but the voxel with logistic regression. A cohort that one of them reads as well as a
student does not tell methods apart.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from timing import table

from data_modules.cohort import COLUMNS
from data_modules.mri import MRIDataModule
from data_modules.store import read_array

Array = NDArray[np.float64]
Reader = Callable[[Array, Array, Array], Array]


def main() -> None:
    """Reads the volumes, scores the readers and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--labels", type=int, default=80, help="labelled training volumes (default: 80)")
    parser.add_argument("--draws", type=int, default=10, help="draws of them, to average over (default: 10)")
    arguments = parser.parse_args()
    whole = MRIDataModule(str(arguments.cohort)).manifest
    known = whole["label"].notna().to_numpy()
    volumes = np.stack([read_array(arguments.cohort / path) for path in whole["path"][known]]).astype(np.float32)
    covariates = whole.columns.drop([*COLUMNS, "split"])
    features = {
        "histogram": (histograms(volumes), logistic),
        "best voxel": (volumes.reshape(len(volumes), -1), best_voxel),
        "coarse volume, principal components": (coarse(volumes), components),
    }
    if len(covariates):
        values = whole.loc[known, list(covariates)]
        features["covariates"] = (values.fillna(values.median()).to_numpy(dtype=float), logistic)
    label = whole["label"].to_numpy()[known]
    held_out = whole["split"].isin(["val", "test"]).to_numpy()[known]
    draws = [MRIDataModule(str(arguments.cohort), n_labelled=arguments.labels, seed=k) for k in range(arguments.draws)]
    trained = [data.manifest["split"].eq("train").to_numpy()[known] for data in draws]
    everything = whole["split"].eq("train").to_numpy()[known]
    rows = []
    for name, (x, reader) in features.items():
        scores = [roc_auc_score(label[held_out], reader(x[t], label[t], x[held_out])) for t in (*trained, everything)]
        spread = f"{statistics.mean(scores[:-1]):.3f} ({min(scores[:-1]):.3f} to {max(scores[:-1]):.3f})"
        rows.append([name, spread, f"{scores[-1]:.3f}"])
    columns = ["reader", f"AUROC with {arguments.labels} labels (range)", f"with all {everything.sum()}"]
    print(f"{arguments.cohort}: {held_out.sum()} held-out volumes, {label[held_out].mean():.0%} obliterated\n")
    print(table(columns, rows))


def logistic(x: Array, label: Array, unseen: Array) -> Array:
    """Fits logistic regression on standardised features (N, F), and scores unseen ones."""
    return (
        make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
        .fit(x, label)
        .decision_function(unseen)
    )


def components(x: Array, label: Array, unseen: Array) -> Array:
    """The same after up to 30 principal components."""
    count = min(30, len(x) - 1)
    steps = (PCA(count, svd_solver="randomized", random_state=0), StandardScaler(), LogisticRegression(C=0.1))
    return make_pipeline(*steps).fit(x, label).decision_function(unseen)


def best_voxel(x: Array, label: Array, unseen: Array) -> Array:
    """Takes the voxel that ranks the training volumes best, brighter or darker."""
    ranks = rankdata(x, axis=0)
    positives = int(label.sum())
    auroc = (ranks[label == 1].sum(axis=0) - positives * (positives + 1) / 2) / (positives * (len(label) - positives))
    best = int(np.abs(auroc - 0.5).argmax())
    return unseen[:, best] * np.sign(auroc[best] - 0.5)


def histograms(volumes: NDArray[np.float32]) -> Array:
    """Returns (N, 24), the shares of intensities in [0, 1]."""
    return np.stack([np.histogram(volume, 24, (0, 1))[0] / volume.size for volume in volumes])


def coarse(volumes: NDArray[np.float32]) -> Array:
    """Returns (N, F), the means of blocks of 4 x 4 x 4 voxels; what is left over at the far sides is dropped."""
    n, *sides = volumes.shape
    d, h, w = (side // 4 for side in sides)
    blocks = volumes[:, : 4 * d, : 4 * h, : 4 * w].reshape(n, d, 4, h, 4, w, 4)
    return blocks.mean(axis=(2, 4, 6)).reshape(n, -1)


if __name__ == "__main__":
    main()
