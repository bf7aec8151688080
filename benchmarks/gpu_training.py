"""A stage at a profile's sizes, trained step by step outside Lightning's loop, so that a step alone can be timed."""

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytorch_lightning as pl
import torch
import yaml
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from poddistill.losses.distillation import OutputRegression
from poddistill.losses.labels import WeightedBCE
from poddistill.losses.pairing import LabelMatchedPairing
from poddistill.losses.schedules import ExponentialSchedule
from poddistill.losses.transfer import PairedOutputs
from poddistill.losses.unpaired import TeacherBank, no_covariates
from poddistill.nets.masked_autoencoder import MaskedAutoEncoder3D
from poddistill.nets.r2plus1d import R2Plus1D
from poddistill.nets.vision_transformer import VisionTransformer3D
from poddistill.pod.mae_pretrain import MAEPretrain
from poddistill.pod.student_kd import StudentKD
from poddistill.pod.teacher_tvus import TeacherTVUS
from poddistill.training.averaging import WeightEMA
from poddistill.training.compilation import Mode, compile_networks
from poddistill.training.optimisation import AdamWCosine

Batch = dict[str, Tensor]
PROFILES = Path(__file__).parents[1] / "experiments" / "pod"
CLIP = {"paper": (32, 112, 112), "demo": (16, 64, 64)}  # (T, H, W) as docs/data.md ingests them

warnings.filterwarnings("ignore", message=r"You are trying to `self.log\(\)` but")
warnings.filterwarnings("ignore", message="Attribute .* is an instance of `nn.Module`")


@dataclass(frozen=True)
class Bench:
    """On what is measured.

    Attributes:
        name: The profile, ``paper`` or ``demo``.
        device: Where.
        precision: ``bf16-mixed`` or ``32-true``.
        mode: torch.compile's.
    """

    name: str
    device: torch.device
    precision: str
    mode: Mode

    @property
    def profile(self) -> SimpleNamespace:
        """The profile's values."""
        return SimpleNamespace(**yaml.safe_load((PROFILES / f"{self.name}.yaml").read_text())["profile"])

    def stage(self, name: str, checkpointing: bool = False) -> pl.LightningModule:
        """Returns a stage with new weights, the same at every call, on the CPU."""
        torch.manual_seed(0)
        profile = self.profile
        if name == "teacher":
            sizes = (profile.teacher_width, profile.teacher_layers)
            network = R2Plus1D(*sizes, subtract_mean=profile.teacher_subtract_mean)
            return TeacherTVUS(network, WeightedBCE(), AdamWCosine(lr=1e-4, warmup_epochs=0))
        encoder = VisionTransformer3D(
            profile.volume_size,
            profile.patch_size,
            profile.encoder_width,
            profile.encoder_depth,
            profile.encoder_heads,
            checkpointing=checkpointing,
        )
        if name == "student":
            optimisation = AdamWCosine(lr=1e-4, warmup_epochs=0, layer_decay=profile.student_layer_decay)
            transfer = PairedOutputs(LabelMatchedPairing(), OutputRegression("probability"))
            return StudentKD(
                encoder, WeightedBCE(), optimisation, None, "in memory", transfer, ExponentialSchedule(0.9)
            )
        decoder = (profile.decoder_width, profile.decoder_depth, profile.decoder_heads)
        ratios = {"mask_ratio": profile.mask_ratio, "prediction_ratio": profile.mae_prediction_ratio}
        network = MaskedAutoEncoder3D(encoder, *decoder, **ratios)
        return MAEPretrain(network, AdamWCosine(lr=1e-4, warmup_epochs=0))

    def batch(self, stage: str, size: int) -> Batch:
        """Returns random images and labels of a stage, on the device."""
        shape = CLIP[self.name] if stage == "teacher" else self.profile.volume_size
        image = torch.rand(size, 1, *shape, generator=torch.Generator().manual_seed(0))
        batch = {"image": image, "label": (torch.arange(size) % 2).float(), "index": torch.arange(size)}
        return {key: value.to(self.device) for key, value in batch.items()}

    def synchronise(self) -> None:
        """Waits for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class Training:
    """Steps of a stage as Lightning takes them: autocast, gradients clipped to a norm of 1, fused AdamW.

    The student's weights are averaged after each.

    Args:
        bench: On what.
        stage: ``mae``, ``teacher`` or ``student``.
        checkpointing: Of the encoder's blocks; the teacher has none.
    """

    def __init__(self, bench: Bench, stage: str, checkpointing: bool = False) -> None:
        torch.backends.cudnn.benchmark = bench.profile.teacher_benchmark
        self.bench, self.compiled = bench, False
        self.module = bench.stage(stage, checkpointing).to(bench.device).train()
        self.average = None
        if stage == "student":  # what the frozen teacher has said of 100 clips
            self.ema, self.average = WeightEMA(bench.profile.student_ema), AveragedModel(self.module)
            labels = (torch.arange(100.0, device=bench.device) % 2).float()
            names, features = tuple(map(str, range(100))), labels[:, None]
            self.module.bank = TeacherBank(
                4 * labels - 2, labels, names, features, no_covariates(100), torch.arange(100), labels > 1
            )
            self.module.covariates = no_covariates(1000).to(bench.device)
        self.optimizer, _ = self.module.optimisation(self.module, 10_000, 1)

    def compile(self) -> "Training":
        """Has the networks compiled in the next step."""
        compile_networks(self.module, self.bench.mode, self.bench.device)
        self.compiled = True
        return self

    def step(self, batch: Batch) -> Tensor:
        """Takes a step and returns (2,): its loss and the norm of its gradients, which nothing has waited for."""
        if self.compiled:  # it imports the compiler
            torch.compiler.cudagraph_mark_step_begin()
        half = self.bench.precision == "bf16-mixed"
        with torch.autocast(self.bench.device.type, torch.bfloat16, enabled=half, cache_enabled=False):
            loss = self.module.training_step(batch, 0)
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        if self.average is not None:
            self.ema.update(self.average, self.module)
        return torch.stack([loss.detach(), norm])

    def seconds(self, batch: Batch, steps: int) -> float:
        """Returns the seconds a step, over several."""
        self.bench.synchronise()
        start = time.perf_counter()
        for _ in range(steps):
            self.step(batch)
        self.bench.synchronise()
        return (time.perf_counter() - start) / steps
