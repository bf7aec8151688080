"""Random changes of training batches, made for the whole batch at once on its device."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample

from data_modules.errors import InputError


class Augmentation(ABC):
    """Changes a batch of images at random, on its device; the type by which configurations name one."""

    @abstractmethod
    def __call__(self, image: Tensor, generator: Generator | None = None) -> Tensor:
        """Returns images (B, 1, ., ., .) in [0, 1] of the same shape and range."""


class VolumeAugmentation(Augmentation):
    """Changes MRI volumes (B, 1, D, H, W) in [0, 1] at random, each by itself.

    The left-right axis D may be mirrored and shifted by whole slices; the sagittal planes (H, W) of a volume are
    turned, scaled and shifted alike, with edge values outside; then contrast, gamma and noise change the
    intensities. Magnitudes are the bounds of uniform distributions.

    Args:
        flip: Probability of mirroring D, in [0, 1].
        slices: Shift along D in slices, in whole numbers up and down.
        rotation: Turn in degrees, both ways.
        zoom: Change of size as a part of it, e.g. 0.1: by factors from 0.9 to 1.1.
        shift: Shift along H and W as a part of their lengths, both ways.
        contrast: Change of the intensities' distance from the volume's mean as a part of it, both ways.
        gamma: Exponents range from exp(-gamma) to exp(gamma).
        noise: Standard deviation of Gaussian noise, from 0 to this, in units of the range [0, 1].

    Raises:
        InputError: A magnitude is negative, or flip or zoom is 1 or more where it must be less.
    """

    def __init__(
        self,
        flip: float = 0.5,
        slices: int = 1,
        rotation: float = 10.0,
        zoom: float = 0.1,
        shift: float = 0.05,
        contrast: float = 0.2,
        gamma: float = 0.2,
        noise: float = 0.03,
    ) -> None:
        _check(
            flip=flip,
            slices=slices,
            rotation=rotation,
            zoom=zoom,
            shift=shift,
            contrast=contrast,
            gamma=gamma,
            noise=noise,
        )
        self.flip = flip
        self.slices = slices
        self.plane = (rotation, zoom, shift)
        self.intensity = (contrast, gamma, noise)

    def __call__(self, image: Tensor, generator: Generator | None = None) -> Tensor:
        """Returns changed volumes of the same shape.

        Args:
            image: float (B, 1, D, H, W) in [0, 1].
            generator: Of the image's device; None draws from the device's global one.
        """
        source = _Draws(image, generator)
        depth = image.shape[2]
        order = torch.arange(depth, device=image.device).expand(len(image), depth)  # (B, D)
        order = torch.where(source.happens(self.flip)[:, None], order.flip(1), order)
        steps = ((2 * self.slices + 1) * source.uniform(0, 1)).floor().long() - self.slices
        order = order.gather(1, (torch.arange(depth, device=image.device) + steps[:, None]).clamp(0, depth - 1))
        return _intensity(_in_plane(image, source, *self.plane, frames=order), source, *self.intensity)


class ClipAugmentation(Augmentation):
    """Changes ultrasound clips (B, 1, T, H, W) in [0, 1] at random, each by itself and all frames of a clip alike.

    A clip may be mirrored left to right and may run backwards (the organs glide to and fro, so either way shows the
    sign); its frames are turned, scaled and shifted, with edge values outside; then contrast, gamma and noise change
    the intensities. Magnitudes are the bounds of uniform distributions.

    Args:
        flip: Probability of mirroring W, in [0, 1].
        reverse: Probability of running backwards, in [0, 1].
        rotation: Turn in degrees, both ways.
        zoom: Change of size as a part of it, e.g. 0.1: by factors from 0.9 to 1.1.
        shift: Shift along H and W as a part of their lengths, both ways.
        contrast: Change of the intensities' distance from the clip's mean as a part of it, both ways.
        gamma: Exponents range from exp(-gamma) to exp(gamma).
        noise: Standard deviation of Gaussian noise, from 0 to this, in units of the range [0, 1].

    Raises:
        InputError: A magnitude is negative or too large.
    """

    def __init__(
        self,
        flip: float = 0.5,
        reverse: float = 0.5,
        rotation: float = 10.0,
        zoom: float = 0.1,
        shift: float = 0.05,
        contrast: float = 0.2,
        gamma: float = 0.2,
        noise: float = 0.03,
    ) -> None:
        _check(
            flip=flip,
            reverse=reverse,
            rotation=rotation,
            zoom=zoom,
            shift=shift,
            contrast=contrast,
            gamma=gamma,
            noise=noise,
        )
        self.flip = flip
        self.reverse = reverse
        self.plane = (rotation, zoom, shift)
        self.intensity = (contrast, gamma, noise)

    def __call__(self, image: Tensor, generator: Generator | None = None) -> Tensor:
        """Returns changed clips of the same shape.

        Args:
            image: float (B, 1, T, H, W) in [0, 1].
            generator: Of the image's device; None draws from the device's global one.
        """
        source = _Draws(image, generator)
        frames = torch.arange(image.shape[2], device=image.device).expand(len(image), -1)  # (B, T)
        frames = torch.where(source.happens(self.reverse)[:, None], frames.flip(1), frames)
        mirrored = source.happens(self.flip)
        return _intensity(
            _in_plane(image, source, *self.plane, frames=frames, mirrored=mirrored), source, *self.intensity
        )


class _Draws:
    """Random numbers (B,), one a sample."""

    def __init__(self, image: Tensor, generator: Generator | None) -> None:
        self.image = image
        self.generator = generator

    def uniform(self, low: float, high: float) -> Tensor:
        unit = torch.rand(len(self.image), device=self.image.device, generator=self.generator)
        return low + (high - low) * unit

    def happens(self, probability: float) -> Tensor:
        return self.uniform(0, 1) < probability

    def normal(self) -> Tensor:
        return torch.randn(self.image.shape, device=self.image.device, generator=self.generator)


def _in_plane(
    image: Tensor,
    source: _Draws,
    rotation: float,
    zoom: float,
    shift: float,
    frames: Tensor,
    mirrored: Tensor | None = None,
) -> Tensor:
    """Takes planes in the order ``frames`` (B, X), then turns, scales and shifts them, all of a sample alike."""
    batch, _, depth, height, width = image.shape
    planes = image.squeeze(1)[torch.arange(batch, device=image.device)[:, None], frames]  # (B, X, H, W)
    angle = source.uniform(-rotation, rotation) * (math.pi / 180)
    scale = 1 + source.uniform(-zoom, zoom)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    # Grid coordinates run from -1 to 1 along both axes, so a turn in pixels needs the aspect ratio.
    across = torch.stack([cos, -sin * height / width, 2 * source.uniform(-shift, shift)], 1)  # (B, 3), gives x
    down = torch.stack([sin * width / height, cos, 2 * source.uniform(-shift, shift)], 1)  # (B, 3), gives y
    if mirrored is not None:
        across = torch.where(mirrored[:, None], -across, across)
    grid = affine_grid(torch.stack([across, down], 1), [batch, depth, height, width], align_corners=False)
    return grid_sample(planes, grid.to(image.dtype), padding_mode="border", align_corners=False).unsqueeze(1)


def _intensity(image: Tensor, source: _Draws, contrast: float, gamma: float, noise: float) -> Tensor:
    """Changes contrast, gamma and noise; a magnitude of 0 costs nothing (on a CPU, noise costs the most)."""
    each = (-1, 1, 1, 1, 1)
    if contrast:
        gain = 1 + source.uniform(-contrast, contrast).view(each)
        image = torch.lerp(image.mean(dim=(1, 2, 3, 4), keepdim=True), image, gain.to(image.dtype))
    image = image.clamp(0, 1)
    if gamma:
        image = image.pow(source.uniform(-gamma, gamma).exp().view(each).to(image.dtype))
    if noise:
        deviation = source.uniform(0, noise).view(each)
        image = image.addcmul(source.normal().to(image.dtype), deviation.to(image.dtype)).clamp(0, 1)
    return image


def _check(**magnitudes: float) -> None:
    for name, value in magnitudes.items():
        limit = {"flip": 1.0, "reverse": 1.0, "zoom": 0.9, "contrast": 1.0}.get(name, math.inf)
        if not 0 <= value <= limit:
            raise InputError(f"augmentation.{name} {value}: give a value from 0 to {limit:g}")
