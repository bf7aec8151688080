"""What `growth.py` measures: a training step of each stage, and the sizes at which it is taken."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from poddistill.nets.masked_autoencoder import MaskedAutoEncoder3D
from poddistill.nets.r2plus1d import R2Plus1D
from poddistill.nets.vision_transformer import VisionTransformer3D

PATCH = (4, 8, 8)  # voxels
DEPTH = 2
HEAD_WIDTH = 32
MASK_RATIO = 0.75
TEACHER_LAYERS = (1, 1, 1, 1)


@dataclass(frozen=True)
class Point:
    """The size of a training step.

    Attributes:
        stage: `mae`, `teacher` or `student`.
        grid: Patches (D, H, W) of a volume; of the teacher's clips, (frames, H, W) in pixels.
        batch: Volumes or clips a step.
        width: Channels of a token; of the teacher, channels of its first stage.
    """

    stage: str
    grid: tuple[int, int, int]
    batch: int
    width: int

    @property
    def tokens(self) -> int:
        """Patches of a volume, masked ones too; frames x pixels of a clip."""
        return prod(self.grid)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels (D, H, W) of a volume, frames and pixels of a clip."""
        if self.stage == "teacher":
            return self.grid
        d, h, w = (side * patch for side, patch in zip(self.grid, PATCH, strict=True))
        return d, h, w


class Student(nn.Module):
    """The student's encoder and head, which give logits (B,) as `StudentKD` does."""

    def __init__(self, encoder: VisionTransformer3D) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.width, 1)

    def forward(self, volumes: Tensor) -> Tensor:
        """Returns logits (B,) of volumes (B, 1, D, H, W)."""
        return self.head(self.encoder(volumes)).squeeze(-1)


def make_network(point: Point) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """Returns a stage's network and its loss of volumes or clips (B, 1, D, H, W)."""
    if point.stage == "teacher":
        teacher = R2Plus1D(width=point.width, layers=TEACHER_LAYERS)
        return teacher, lambda clips: _label_loss(teacher(clips))
    encoder = VisionTransformer3D(
        point.shape, PATCH, width=point.width, depth=DEPTH, heads=max(1, point.width // HEAD_WIDTH)
    )
    if point.stage == "student":
        student = Student(encoder)
        return student, lambda volumes: _student_loss(student(volumes))
    network = MaskedAutoEncoder3D(
        encoder,
        decoder_width=point.width // 2,
        decoder_depth=1,
        decoder_heads=max(1, point.width // 2 // HEAD_WIDTH),
        mask_ratio=MASK_RATIO,
    )
    return network, lambda volumes: network(volumes).loss


def _label_loss(logits: Tensor) -> Tensor:
    labels = torch.arange(len(logits), device=logits.device) % 2
    return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


def _student_loss(logits: Tensor) -> Tensor:
    # The teacher's logits are looked up, not computed, so a constant stands for them.
    return 0.5 * _label_loss(logits) + 0.5 * functional.mse_loss(logits.sigmoid(), torch.full_like(logits, 0.5))


GRIDS = [(8, 8, 8), (16, 8, 8), (16, 16, 8), (16, 16, 16), (32, 16, 16), (32, 32, 16)]  # 512 to 16,384 patches
CLIPS = [(16, 32, 32), (16, 64, 32), (16, 64, 64), (32, 64, 64), (32, 128, 64), (32, 128, 128)]  # 16,384 to 524,288
BASES = {
    "mae": Point("mae", (16, 8, 8), batch=2, width=64),
    "teacher": Point("teacher", (16, 64, 64), batch=2, width=8),
    "student": Point("student", (16, 8, 8), batch=2, width=64),
}
SMALLEST = {"mae": (2, 2, 2), "teacher": (8, 16, 16), "student": (2, 2, 2)}
AXES = ("tokens", "batch", "width")


def points_of(stage: str, axis: str) -> list[Point]:
    """Returns the points of a stage along `tokens`, `batch` or `width`, the other two fixed, in growing order."""
    base = BASES[stage]
    if axis == "tokens":
        return [replace(base, grid=grid) for grid in (CLIPS if stage == "teacher" else GRIDS)]
    if axis == "batch":
        return [replace(base, batch=batch) for batch in (1, 2, 4, 8, 16)]
    return [replace(base, width=base.width * factor // 2) for factor in (1, 2, 4, 8, 16)]
