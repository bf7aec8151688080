"""The peers' side of `trained_student.py`: the method of poddistill as a plain training script over MONAI and PyTorch.

    .venv/bin/python benchmarks/trained_student_peers.py mae|teacher|student --profile demo.yaml --seed 0 --out folder
        --cases mri.csv [--clips tvus.csv --encoder mae/best.pt --teacher teacher/best.pt]

A loop in plain PyTorch, which is less than Lightning does. Sizes, epochs, rates and batches are the profile's; what
poddistill's stage files fix beside (weight decay, betas, clipping, augmentation, loss) is written out here. Lists of
cases are CSV files with the columns image, label, split, case_id and patient_id.
"""

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from monai.utils import set_determinism
from peers import MonaiMAE, PlainR2Plus1D
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from trained_student_peers_data import loader

Profile = dict[str, Any]
WAITS: Counter[str] = Counter()
"""Seconds that a stage waits for its loader, and for the teacher beside the student."""


class Student(nn.Module):
    """MONAI's encoder with a linear head."""

    def __init__(self, mae: MonaiMAE, width: int) -> None:
        super().__init__()
        self.mae = mae
        for name, parameter in mae.network.named_parameters():
            if name.startswith(("decoder", "mask_tokens")):
                parameter.requires_grad_(False)
        self.head = nn.Linear(width, 1)
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, volumes: Tensor) -> Tensor:
        """Returns logits (B,) of volumes (B, 1, D, H, W)."""
        features = self.mae.encode(volumes)
        with torch.autocast(features.device.type, enabled=False):  # logits in bfloat16 would tie
            return self.head(features.float()).squeeze(1)


def masked_autoencoder(profile: Profile) -> MonaiMAE:
    """Returns MONAI's network in the profile's sizes."""
    encoder = {key: profile[f"encoder_{key}"] for key in ("width", "depth", "heads")}
    decoder = {f"decoder_{key}": profile[f"decoder_{key}"] for key in ("width", "depth", "heads")}
    sizes = {key: tuple(profile[f"{name}_size"]) for key, name in (("image_size", "volume"), ("patch_size", "patch"))}
    return MonaiMAE(**sizes, **encoder, **decoder, mask_ratio=profile["mask_ratio"])


def video_network(profile: Profile) -> PlainR2Plus1D:
    """Returns R(2+1)D in the profile's sizes."""
    width, layers = profile["teacher_width"], tuple(profile["teacher_layers"])
    return PlainR2Plus1D(width, layers, subtract_mean=profile["teacher_subtract_mean"])


def pretrain(profile: Profile, arguments: argparse.Namespace) -> None:
    """Stage 1: keeps the network with the least validation loss."""
    cases = pd.read_csv(arguments.cases)
    network = masked_autoencoder(profile)
    training = loader(cases[cases["split"].isin(["train", "unlabelled"])], profile["mae_batch_size"], "pretraining")
    validation = loader(cases[cases["split"].eq("val") & cases["label"].notna()], profile["mae_batch_size"])

    def loss_of(batch: dict[str, Tensor], epoch: int) -> Tensor:
        return network(batch["image"])  # in float32: MONAI's network fails under bf16 autocast

    def score() -> float:
        with torch.random.fork_rng():
            torch.manual_seed(0)  # the same masks at every validation
            losses = [(network(batch["image"]).item(), len(batch["image"])) for batch in validation]
        return -sum(loss * n for loss, n in losses) / sum(n for _, n in losses)

    fit(network, training, loss_of, score, profile, "mae", arguments.out, betas=(0.9, 0.95))


def train_teacher(profile: Profile, arguments: argparse.Namespace) -> None:
    """Stage 2: keeps the network with the greatest validation AUROC, and tests it."""
    cases = pd.read_csv(arguments.cases)
    network = video_network(profile)
    chosen = cases[cases["split"].eq("train")]
    training = loader(chosen, profile["teacher_batch_size"], "clips")
    held_out = cases[cases["split"].isin(["val", "test"]) & cases["label"].notna()]
    validation = loader(held_out[held_out["split"].eq("val")], profile["teacher_batch_size"])
    label_loss = balanced_loss(chosen["label"])

    # In float32: under bf16 autocast the gradients of short inputs are garbage on CPUs, and the loss becomes nan.
    profile = profile | {"precision": "32-true"}

    def loss_of(batch: dict[str, Tensor], epoch: int) -> Tensor:
        return label_loss(network(batch["image"]), batch["label"].float())

    def score() -> float:
        return auroc(network, validation, profile)

    network.load_state_dict(fit(network, training, loss_of, score, profile, "teacher", arguments.out))
    predict(network, held_out, profile, "teacher", arguments.out)


def train_student(profile: Profile, arguments: argparse.Namespace) -> None:
    """Stage 3: keeps the averaged weights with the greatest validation AUROC, and tests them."""
    cases, clips = pd.read_csv(arguments.cases), pd.read_csv(arguments.clips)
    mae, teacher = masked_autoencoder(profile), video_network(profile)
    mae.load_state_dict(torch.load(arguments.encoder))
    teacher.load_state_dict(torch.load(arguments.teacher))
    teacher.eval()
    student = Student(mae, profile["encoder_width"])
    average = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(profile["student_ema"]))

    chosen = cases[cases["split"].eq("train")]
    training = loader(chosen, profile["student_batch_size"], "volumes")
    held_out = cases[cases["split"].isin(["val", "test"]) & cases["label"].notna()]
    validation = loader(held_out[held_out["split"].eq("val")], profile["student_batch_size"])
    label_loss = balanced_loss(chosen["label"])
    taught = clips[clips["split"].eq("train")].reset_index(drop=True)
    ultrasound = torch.cat([batch["image"] for batch in loader(taught, 64)])  # all in memory
    by_label = [torch.tensor(taught.index[taught["label"] == label].to_numpy()) for label in (0, 1)]

    def loss_of(batch: dict[str, Tensor], epoch: int) -> Tensor:
        labels, weight = batch["label"].float(), profile["student_alpha"] ** epoch
        rows = [by_label[int(label)] for label in labels]
        drawn = torch.stack([row[torch.randint(len(row), ())] for row in rows])  # any clip of the same label
        start = time.perf_counter()
        with torch.no_grad(), autocast(profile):
            target = teacher(ultrasound[drawn]).float().sigmoid()
        WAITS["teacher"] += time.perf_counter() - start
        with autocast(profile):
            logits = student(batch["image"]).float()
        distillation = functional.mse_loss(logits.sigmoid(), target)
        return weight * distillation + (1 - weight) * label_loss(logits, labels)

    def score() -> float:
        return auroc(average, validation, profile)

    decay = profile["student_layer_decay"]
    best = fit(student, training, loss_of, score, profile, "student", arguments.out, layer_decay=decay, average=average)
    average.load_state_dict(best)
    predict(average, held_out, profile, "student", arguments.out)


def fit(
    network: nn.Module,
    batches: DataLoader,
    loss_of: Callable[[dict[str, Tensor], int], Tensor],
    score: Callable[[], float],
    profile: Profile,
    stage: str,
    out: Path,
    betas: tuple[float, float] = (0.9, 0.999),
    layer_decay: float = 1.0,
    average: AveragedModel | None = None,
) -> dict[str, Tensor]:
    """Trains a network and returns, and saves, the state of its best validation; the average's, where there is one."""
    epochs, every = profile[f"{stage}_epochs"], profile[f"{stage}_validate_every"]
    groups = parameter_groups(network, profile[f"{stage}_lr"], layer_decay, profile["encoder_depth"])
    optimizer = torch.optim.AdamW(groups, betas=betas, fused=True)
    warmup, total = round(profile[f"{stage}_warmup_epochs"] * len(batches)), epochs * len(batches)

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * min((step - warmup) / max(total - warmup, 1), 1)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    kept, best = average if average is not None else network, -math.inf
    for epoch in range(epochs):
        network.train()
        for batch in awaited(batches):
            loss = loss_of(batch, epoch)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if average is not None:
                average.update_parameters(network)
        if (epoch + 1) % every == 0:
            kept.eval()
            with torch.no_grad():
                value = score()
            print(f"{stage}: epoch {epoch + 1} of {epochs}, validation {value:.4f}", flush=True)
            if value > best:
                best = value
                torch.save(kept.state_dict(), out / "best.pt")
    return torch.load(out / "best.pt")


def awaited(batches: DataLoader) -> Iterator[dict[str, Tensor]]:
    """Yields batches, and adds up how long they are waited for."""
    iterator = iter(batches)
    for _ in range(len(batches)):
        start = time.perf_counter()
        batch = next(iterator)
        WAITS["loader"] += time.perf_counter() - start
        yield batch


def parameter_groups(network: nn.Module, lr: float, layer_decay: float, depth: int) -> list[dict[str, Any]]:
    """Returns a group a layer with its rate; biases, norms, tokens and positions have no weight decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            layer = depth + 1
            if "patch_embedding" in name or "cls_token" in name:
                layer = 0
            elif "mae.network.blocks." in name:
                layer = int(name.split(".")[3]) + 1  # the last one is the norm
            decays = parameter.ndim > 1 and "token" not in name and "pos" not in name
            key = lr * layer_decay ** (depth + 1 - layer), 0.05 if decays else 0.0
            groups.setdefault(key, []).append(parameter)
    return [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]


def balanced_loss(labels: pd.Series) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns binary cross-entropy with weights that balance the classes of the training labels."""
    n, positive = len(labels), int(labels.sum())
    weights = torch.tensor([n / (2 * (n - positive)), n / (2 * positive)])

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(logits, target, weight=weights[target.long()])

    return loss


def autocast(profile: Profile) -> torch.autocast:
    """Returns the profile's precision."""
    return torch.autocast("cpu", torch.bfloat16, enabled=profile["precision"] == "bf16-mixed")


def scores(network: nn.Module, batches: DataLoader, profile: Profile) -> tuple[Tensor, Tensor]:
    """Returns labels and logits (N,) of a loader's cases, in their order."""
    with torch.no_grad(), autocast(profile):
        pairs = [(batch["label"], network(batch["image"]).float()) for batch in batches]
    labels, logits = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return labels, logits


def auroc(network: nn.Module, batches: DataLoader, profile: Profile) -> float:
    """Returns the area under the ROC curve of a loader's cases."""
    return float(roc_auc_score(*scores(network, batches, profile)))


def predict(network: nn.Module, cases: pd.DataFrame, profile: Profile, stage: str, out: Path) -> None:
    """Writes the probabilities of validation and test cases as poddistill does."""
    network.eval()
    _, logits = scores(network, loader(cases, profile[f"{stage}_batch_size"]), profile)
    table = cases[["case_id", "patient_id", "split", "label"]].assign(probability=logits.double().sigmoid().numpy())
    table.astype({"label": "Int64"}).to_csv(out / "predictions.csv", index=False)


STAGES = {"mae": pretrain, "teacher": train_teacher, "student": train_student}


def main() -> None:
    """Runs a stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--profile", type=Path, required=True, help="YAML file with the sizes and budgets")
    parser.add_argument("--cases", type=Path, required=True, help="CSV of the cases to train, validate and test on")
    parser.add_argument("--clips", type=Path, help="CSV of the clips that the student's teacher sees")
    parser.add_argument("--encoder", type=Path, help="best.pt of the stage mae")
    parser.add_argument("--teacher", type=Path, help="best.pt of the stage teacher")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    set_determinism(arguments.seed)
    STAGES[arguments.stage](yaml.safe_load(arguments.profile.read_text())["profile"], arguments)
    (arguments.out / "waits.json").write_text(json.dumps(WAITS))


if __name__ == "__main__":
    main()
