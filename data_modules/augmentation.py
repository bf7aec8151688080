"""Random changes of training batches, made for the whole batch at once on its device.

What is drawn (`Change`) is apart from what is done with it (`apply`), so a change can be told, repeated and compared.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample

from data_modules.errors import InputError

CACHED = 2**18
"""Voxels that are changed together on a CPU: 1 MiB, which a core's cache holds."""


class Augmentation(ABC):
    """Changes a batch of images at random, on its device; the type by which configurations name one."""

    @abstractmethod
    def __call__(self, image: Tensor, generator: Generator | None = None) -> Tensor:
        """Returns float32 images (B, 1, ., ., .) in [0, 1] of the same shape and range."""


@dataclass(frozen=True)
class Change:
    """What was drawn for a batch of B images; None where nothing is changed.

    Attributes:
        order: int64 (B, X), the plane (slice or frame) that each plane is taken from.
        matrix: float32 (B, 2, 3); the pixel at (x, y) takes the value at ``matrix @ (x, y, 1)``, in coordinates from -1
            to 1 between the outer edges of a plane.
        gain: float32 (B,), the factor of the intensities' distance from the image's mean.
        exponent: float32 (B,), of the intensities.
        deviation: float32 (B,), standard deviation of the noise.
        seed: int64 (B,) on the CPU, of the noise.
    """

    order: Tensor | None = None
    matrix: Tensor | None = None
    gain: Tensor | None = None
    exponent: Tensor | None = None
    deviation: Tensor | None = None
    seed: Tensor | None = None

    def __getitem__(self, part: slice) -> "Change":
        """Returns the change of some of the images."""
        return Change(**{name: None if drawn is None else drawn[part] for name, drawn in vars(self).items()})


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
        InputError: A magnitude is out of its range; the message says which.
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
            image: float32 (B, 1, D, H, W) in [0, 1].
            generator: Of the image's device; None draws from the global ones.
        """
        return apply(image, self.draw(image, generator))

    def draw(self, image: Tensor, generator: Generator | None = None) -> Change:
        """Draws a change for each volume; arguments as those of a call."""
        source = _Draws(image, generator)
        depth = image.shape[2]
        order = torch.arange(depth, device=image.device).expand(len(image), depth)  # (B, D)
        order = torch.where(source.happens(self.flip)[:, None], order.flip(1), order)
        steps = ((2 * self.slices + 1) * source.uniform(0, 1)).floor().long() - self.slices
        order = order.gather(1, (torch.arange(depth, device=image.device) + steps[:, None]).clamp(0, depth - 1))
        return Change(
            order=order if self.flip or self.slices else None,
            matrix=source.matrix(*self.plane),
            **source.intensity(*self.intensity),
        )


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
            image: float32 (B, 1, T, H, W) in [0, 1].
            generator: Of the image's device; None draws from the global ones.
        """
        return apply(image, self.draw(image, generator))

    def draw(self, image: Tensor, generator: Generator | None = None) -> Change:
        """Draws a change for each clip; arguments as those of a call."""
        source = _Draws(image, generator)
        frames = torch.arange(image.shape[2], device=image.device).expand(len(image), -1)  # (B, T)
        frames = torch.where(source.happens(self.reverse)[:, None], frames.flip(1), frames)
        mirrored = source.happens(self.flip) if self.flip else None
        return Change(
            order=frames if self.reverse else None,
            matrix=source.matrix(*self.plane, mirrored),
            **source.intensity(*self.intensity),
        )


def apply(image: Tensor, change: Change) -> Tensor:
    """Makes a change, the same one as often as it is called.

    Args:
        image: float32 (B, 1, X, H, W) in [0, 1]; stays as it is.
        change: What was drawn for it.

    Returns:
        Images of the same shape, in [0, 1].
    """
    changed = torch.empty_like(image)
    # On a CPU a few samples at a time stay in its cache, and what each step allocates is memory that it just freed.
    step = max(1, CACHED // image[0].numel()) if image.device.type == "cpu" else len(image)
    for start in range(0, len(image), step):
        part = slice(start, start + step)
        _apply(image[part], change[part], out=changed[part])
    return changed


def _apply(image: Tensor, change: Change, out: Tensor) -> None:
    planes, each = image.squeeze(1), (-1, 1, 1, 1, 1)  # (B, X, H, W)
    if change.order is not None:
        planes = planes[torch.arange(len(image), device=image.device)[:, None], change.order]
    if change.matrix is not None:
        grid = affine_grid(change.matrix, list(planes.shape), align_corners=False)  # (B, H, W, 2)
        parts = _parts_for_threads(*planes.shape[:2]) if planes.device.type == "cpu" else 1
        samples = planes.unflatten(1, (parts, -1)).flatten(0, 1)  # (B * parts, X / parts, H, W)
        samples = grid_sample(samples, grid.repeat_interleave(parts, 0), padding_mode="border", align_corners=False)
        planes = samples.view_as(planes)
    changed = planes.unsqueeze(1)
    if change.gain is not None:
        changed = torch.lerp(changed.mean(dim=(1, 2, 3, 4), keepdim=True), changed, change.gain.view(each), out=out)
    torch.clamp(changed, 0, 1, out=out)
    if change.exponent is not None:
        out.pow_(change.exponent.view(each))
    if change.deviation is not None and change.seed is not None:
        out.addcmul_(standard_normal(out.shape, change.seed, out.device), change.deviation.view(each)).clamp_(0, 1)


def _parts_for_threads(samples: int, planes: int) -> int:
    """Returns into how many equal parts to cut each sample's planes: torch's threads share samples, not planes."""
    wanted = -(-torch.get_num_threads() // samples)  # rounded up
    return math.gcd(planes, 1 << (wanted - 1).bit_length())


def standard_normal(shape: torch.Size, seeds: Tensor, device: torch.device) -> Tensor:
    """Draws standard normal numbers, float32, each sample's from its own seed.

    On a CPU this is the transform of Box and Muller (1958) on 16 bits a number, for drawing the 32 bits that
    `torch.randn` takes is most of its time. Radius and angle have 65,536 values each; no number is beyond 4.86.

    Args:
        shape: (B, ...).
        seeds: int64 (B,) on the CPU.
        device: Where to draw; numbers differ between kinds of devices.
    """
    generators = [Generator(device).manual_seed(seed) for seed in seeds.tolist()]
    if device.type != "cpu":
        return torch.stack([torch.randn(shape[1:], device=device, generator=each) for each in generators])
    size = math.prod(shape[1:])
    bits = torch.empty(len(generators), -(-size // 4), dtype=torch.int64)  # four numbers from 64 bits
    for row, generator in zip(bits, generators, strict=True):
        row.random_(-(2**63), None, generator=generator)
    radius, angle = bits.view(torch.int16).float().chunk(2, dim=1)
    radius.add_(2**15 + 0.5).mul_(2**-16).log_().mul_(-2).sqrt_()
    angle.mul_(math.pi / 2**15)
    normal = radius.new_empty(len(radius), 2, radius.shape[1])
    torch.mul(angle.cos(), radius, out=normal[:, 0])
    torch.mul(angle.sin_(), radius, out=normal[:, 1])
    return normal.flatten(1)[:, :size].reshape(shape)


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

    def seeds(self) -> Tensor:
        """From the CPU's global generator unless one is given: reading them from a GPU would wait for all its work."""
        device = "cpu" if self.generator is None else self.generator.device
        return torch.randint(2**63 - 1, (len(self.image),), device=device, generator=self.generator).cpu()

    def matrix(self, rotation: float, zoom: float, shift: float, mirrored: Tensor | None = None) -> Tensor | None:
        """Turns, scales, shifts and mirrors planes; None where all stay."""
        height, width = self.image.shape[-2:]
        angle = self.uniform(-rotation, rotation) * (math.pi / 180)
        scale = 1 + self.uniform(-zoom, zoom)
        cos, sin = angle.cos() / scale, angle.sin() / scale
        # Grid coordinates run from -1 to 1 along both axes, so a turn in pixels needs the aspect ratio.
        across = torch.stack([cos, -sin * height / width, 2 * self.uniform(-shift, shift)], 1)  # (B, 3), gives x
        down = torch.stack([sin * width / height, cos, 2 * self.uniform(-shift, shift)], 1)  # (B, 3), gives y
        if mirrored is not None:
            across = torch.where(mirrored[:, None], -across, across)
        elif not (rotation or zoom or shift):
            return None
        return torch.stack([across, down], 1)

    def intensity(self, contrast: float, gamma: float, noise: float) -> dict[str, Tensor | None]:
        return {
            "gain": 1 + self.uniform(-contrast, contrast) if contrast else None,
            "exponent": self.uniform(-gamma, gamma).exp() if gamma else None,
            "deviation": self.uniform(0, noise) if noise else None,
            "seed": self.seeds() if noise else None,
        }


def _check(**magnitudes: float) -> None:
    for name, value in magnitudes.items():
        limit = {"flip": 1.0, "reverse": 1.0, "zoom": 0.9, "contrast": 1.0}.get(name, math.inf)
        if not 0 <= value <= limit:
            raise InputError(f"augmentation.{name} {value}: give a value from 0 to {limit:g}")
