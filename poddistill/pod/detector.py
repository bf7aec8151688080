"""What the ultrasound teacher and the MRI student share: optimiser, scoring, prediction."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from data_modules.errors import InputError
from poddistill.losses.labels import LabelLoss
from poddistill.training.checkpoints import refuse_trained_on
from poddistill.training.optimisation import Optimisation, configure
from poddistill.training.scores import CaseScores, auroc, require_finite

Batch = dict[str, Tensor]


class Detector(pl.LightningModule):
    """A binary detector of POD obliteration: ``forward`` turns images into logits (B,) of label 1, obliterated.

    Validation selects, so it logs ``val/loss`` and ``val/auroc``. ``test`` scores the held-out fold (``test/loss``,
    ``test/auroc``) and also passes over the validation fold, from whose predictions decision thresholds are taken.

    Args:
        label_loss: Loss of logits (B,) against labels (B,), with class weights from the training labels.
        optimisation: Makes optimiser and learning-rate schedule.

    Attributes:
        earlier_patients: Whom the checkpoints that this training builds on were trained on, `hashed`.
    """

    def __init__(self, label_loss: LabelLoss, optimisation: Optimisation) -> None:
        super().__init__()
        self.label_loss = label_loss
        self.optimisation = optimisation
        self.scores = CaseScores()
        self.earlier_patients: set[str] = set()

    def on_fit_start(self) -> None:
        """Takes the class weights from the labels that this run trains on, known to every process alike.

        Raises:
            InputError: The validation cases are all of one class, so that no ``val/auroc`` could select anything.
        """
        manifest = self._data().manifest
        labels = manifest.loc[manifest["split"].eq("val"), "label"].dropna()
        if labels.nunique() < 2:
            raise InputError(
                f"{int(labels.sum())} of the {len(labels)} labelled validation cases are obliterated, but selection "
                "needs both classes: choose another --fold, or ingest the cohort with fewer --folds"
            )
        self.label_loss.prepare(torch.tensor(self._data().train_labels, dtype=torch.float32))

    def build_on(self, *checkpoints: str | None) -> None:
        """Notes whom the checkpoints of earlier stages have seen; call it before anything is taken from their outputs.

        Raises:
            InputError: One of them was trained on patients who are held out here.
        """
        seen = (refuse_trained_on(checkpoint, self._data().manifest) for checkpoint in checkpoints if checkpoint)
        self.earlier_patients = set().union(*seen)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Returns the optimiser and its schedule, stepped every optimiser step."""
        return configure(self.optimisation, self)

    def on_validation_epoch_start(self) -> None:
        """Forgets the cases of the last pass."""
        self.scores.reset()

    on_test_epoch_start = on_validation_epoch_start
    on_predict_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collects the logits of a batch."""
        self.scores.update(batch["index"], self(batch["image"]), batch["label"])

    test_step = validation_step

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the probabilities (B,) of obliteration."""
        logits = self(batch["image"])
        self.scores.update(batch["index"], logits, batch["label"])
        return torch.sigmoid(logits)

    def on_validation_epoch_end(self) -> None:
        """Logs the scores over all validation cases, each counted once.

        Raises:
            InputError: A case has no finite logit.
        """
        index, logit, label = self.scores.compute()
        require_finite(index, logit, self._data().manifest)
        self._log_scores("val", logit, label)

    def on_test_epoch_end(self) -> None:
        """Logs the scores over the test fold."""
        index, logit, label = self.scores.compute()
        held_out = (self._data().manifest["split"] == "test").to_numpy()[index.cpu().numpy()]
        chosen = torch.as_tensor(held_out, device=logit.device)
        self._log_scores("test", logit[chosen], label[chosen])

    def _log_scores(self, split: str, logit: Tensor, label: Tensor) -> None:
        # Every process holds all cases here, so nothing is left to synchronise; sync_dist only silences the warning.
        loss = nn.functional.binary_cross_entropy_with_logits(logit, label)
        self.log_dict({f"{split}/loss": loss, f"{split}/auroc": auroc(logit, label).float()}, sync_dist=True)

    def _data(self) -> Any:
        return self.trainer.datamodule  # type: ignore[attr-defined]
