"""Accumulated batches make the step of one large batch."""

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from poddistill.losses.labels import WeightedBCE
from poddistill.nets.vision_transformer import VisionTransformer3D
from poddistill.pod.student_kd import StudentKD
from poddistill.training.optimisation import AdamWCosine

LABELS = [0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0]


class Cases(pl.LightningDataModule):
    train_labels = np.array(LABELS)
    manifest = pd.DataFrame({"split": "val", "label": [0.0, 1.0]})

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader:
        volumes = torch.rand(8, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
        cases = [{"image": volume, "label": torch.tensor(label)} for volume, label in zip(volumes, LABELS, strict=True)]
        return DataLoader(cases, self.batch_size)  # type: ignore[arg-type]


class Gradients(pl.Callback):
    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: object) -> None:
        self.steps.append({name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None})


def gradients(batch_size: int, accumulate: int) -> dict[str, Tensor]:
    torch.manual_seed(0)
    encoder = VisionTransformer3D((4, 4, 4), (2, 2, 2), 12, 2, 2)
    module, seen = StudentKD(encoder, WeightedBCE("balanced"), AdamWCosine()), Gradients()
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        accumulate_grad_batches=accumulate,
        callbacks=[seen],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=Cases(batch_size))
    (step,) = seen.steps
    return step


def test_two_batches_of_four_make_the_step_of_a_batch_of_eight() -> None:
    accumulated, whole = gradients(4, accumulate=2), gradients(8, accumulate=1)
    assert all(gradient.abs().max() > 1e-6 for gradient in whole.values())
    torch.testing.assert_close(accumulated, whole, rtol=1e-4, atol=1e-7)
