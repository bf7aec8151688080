"""Pictures that a stage leaves in its run folder and on W&B: what the auto-encoder fills in, what the teacher saw."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import WandbLogger

from data_modules.cohort_dataset import in_unit_range
from data_modules.store import read_array
from poddistill.training.run_folder import is_dry
from poddistill.training.scores import CaseScores


class ReconstructionFigure(Callback):
    """Draws ``mae-reconstructions.png`` at the end of a fit: validation volumes, what the encoder sees, what comes out.

    Args:
        dirpath: Folder for the picture.
        n_cases: Number of volumes.
    """

    def __init__(self, dirpath: str, n_cases: int = 4) -> None:
        self.dirpath = Path(dirpath)
        self.n_cases = n_cases

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draws from process 0."""
        if trainer.interrupted or is_dry(trainer) or not trainer.is_global_zero:
            return
        module: Any = pl_module  # MAEPretrain or SharedMAEPretrain, which lie above this module
        batch = next(iter(trainer.datamodule.val_dataloader()))  # type: ignore[attr-defined]
        image = in_unit_range(batch["image"][: self.n_cases].to(module.device))
        noise = module.network.case_noise(batch["index"][: self.n_cases]).to(module.device)
        module.eval()
        with torch.inference_mode():
            volume, hidden = module.network.reconstruct(image, noise)
        middle = image.shape[2] // 2  # the mid-sagittal slice
        slices = [
            tensor[:, 0, middle].float().cpu().numpy() for tensor in (image, image.masked_fill(hidden, 0.0), volume)
        ]
        figure = Figure(figsize=(2.0 * len(image), 6.4), layout="constrained")
        axes = figure.subplots(3, len(image), squeeze=False)
        for row, (name, pictures) in enumerate(zip(("volume", "visible patches", "filled in"), slices, strict=True)):
            for axis, picture in zip(axes[row], pictures, strict=True):
                axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
                axis.set(xticks=[], yticks=[])
            axes[row, 0].set_ylabel(name)
        _save(figure, self.dirpath / "mae-reconstructions.png", trainer)


class FilmstripFigure(Callback):
    """Draws ``clip-filmstrips.png`` after a test: the clips that the teacher finds least and most obliterated.

    Args:
        dirpath: Folder for the picture.
        n_cases: Number of clips, half of them from either end.
        n_frames: Number of frames shown of each.
    """

    def __init__(self, dirpath: str, n_cases: int = 4, n_frames: int = 8) -> None:
        self.dirpath = Path(dirpath)
        self.n_cases = n_cases
        self.n_frames = n_frames

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draws from process 0."""
        index, logit, _ = cast(CaseScores, pl_module.scores).compute()  # every process takes part in the gathering
        if is_dry(trainer) or not trainer.is_global_zero:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        cases = data.manifest.iloc[index.cpu().numpy()].assign(probability=logit.cpu().double().sigmoid().numpy())
        cases = cases[cases["split"] == "test"].sort_values("probability")
        half = min(self.n_cases // 2, len(cases) // 2)
        shown = cases.iloc[[*range(half), *range(len(cases) - half, len(cases))]]
        if shown.empty:
            return
        figure = Figure(figsize=(1.3 * self.n_frames, 1.5 * len(shown)), layout="constrained")
        axes = figure.subplots(len(shown), self.n_frames, squeeze=False)
        for row, case in zip(axes, shown.itertuples(), strict=True):
            clip = read_array(Path(data.cohort) / case.path)
            frames = np.linspace(0, len(clip) - 1, self.n_frames).round().astype(int)
            for axis, frame in zip(row, frames, strict=True):
                axis.imshow(clip[frame], cmap="gray", vmin=0, vmax=255)
                axis.set(xticks=[], yticks=[])
            truth = "obliterated" if case.label == 1 else "free"
            row[0].set_ylabel(f"{truth}\np = {case.probability:.2f}")
        _save(figure, self.dirpath / "clip-filmstrips.png", trainer)


def _save(figure: Figure, file: Path, trainer: pl.Trainer) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(file.stem, [str(file)])
