"""The space in which features of the student meet the teacher's, though the networks and the patients differ."""

import torch
from torch import Tensor, nn

from data_modules.errors import InputError
from poddistill.losses.unpaired import TeacherBank


class TeacherSpace(nn.Module):
    """Maps features of both networks into one space: z = W h + a for the student, z = (f - m) / s for the teacher.

    h (student_width,) is what the student's head reads, W and a are learnt with the student; f (teacher_features,) is
    what the teacher's head reads, m and s are mean and standard deviation of each of its features over the bank. A
    feature that does not vary over the bank is centred only. All is computed in float32, under autocast, too.

    A projection to the teacher's width is usual in feature distillation (Romero et al., "FitNets", 2015, arXiv
    1412.6550). Standardising is ours: features behind a ReLU all lie in one direction, which hides the classes from a
    cosine, and a few large ones would drown the others in a distance.

    Args:
        student_width: Number of features of the student's encoder.
        teacher_features: Number of features that the teacher's head reads.

    Raises:
        InputError: A number is below 1.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, student_width: int, teacher_features: int) -> None:
        super().__init__()
        for name, value in (("student_width", student_width), ("teacher_features", teacher_features)):
            if value < 1:
                raise InputError(f"{name} is {value}: give the number of features, at least 1")
        self.projection = nn.Linear(student_width, teacher_features)
        self.register_buffer("mean", torch.zeros(teacher_features))
        self.register_buffer("scale", torch.ones(teacher_features))

    def prepare(self, bank: TeacherBank) -> None:
        """Sets m and s.

        Raises:
            InputError: The bank's features have another width, or no clip has one of the labels.
        """
        width, expected = bank.features.shape[1], self.projection.out_features
        if width != expected:
            raise InputError(f"teacher_features is {expected}, but the teacher's head reads {width}: give {width}")
        for label, meaning in ((0, "free"), (1, "obliterated")):
            if not len(bank.labelled(label)):
                raise InputError(f"no TVUS training clip has label {label} ({meaning}): add such clips")
        features = bank.features.cpu().double()  # not every accelerator knows float64
        scale = features.std(0, correction=0)
        varies = scale > 1e-6 * features.abs().amax(0)  # not 0: the deviation of equal numbers may be a rounding error
        self.mean.copy_(features.mean(0))
        self.scale.copy_(torch.where(varies, scale, 1.0))

    def standardised(self, features: Tensor) -> Tensor:
        """Maps the teacher's features (N, teacher_features) into the space; returns float32 of the same shape."""
        return (features.float() - self.mean) / self.scale

    def forward(self, features: Tensor) -> Tensor:
        """Maps the student's features (B, student_width) into the space; returns float32 (B, teacher_features).

        Raises:
            InputError: The features have another width.
        """
        width, expected = features.shape[1], self.projection.in_features
        if width != expected:
            raise InputError(f"student_width is {expected}, but the student's encoder gives {width}: give {width}")
        with torch.autocast(features.device.type, enabled=False):
            return self.projection(features.float())
