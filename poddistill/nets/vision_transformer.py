"""A 3D vision transformer: a volume, or only some of its patches, in; one feature vector out.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, with cubes for squares.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from data_modules.errors import InputError
from poddistill.nets.patches import sincos_positions, take_rows
from poddistill.nets.transformer import TransformerBlock, initialise_linear, run_blocks

Size3D = tuple[int, int, int]


class VisionTransformer3D(nn.Module):
    """Encodes volumes with a pre-norm transformer over non-overlapping 3D patches.

    The positions are fixed 3D sines and cosines and no part of the state dict, so weights trained at one
    `image_size` load at another one with the same `patch_size`.

    Args:
        image_size: Voxels (D, H, W) of every volume.
        patch_size: Voxels (d, h, w) of a patch; each divides its side of `image_size`.
        width: Channels of a token; at least 6, a multiple of `heads`.
        depth: Number of transformer blocks.
        heads: Attention heads of a block.
        mlp_ratio: Hidden channels of a block's MLP, in units of `width`.
        pooling: How tokens become features: `mean` of the patches' tokens, or a learned `class` token.
        in_channels: Channels of the volume.
        dropout: Probability of dropping a channel after attention and after the MLP, in [0, 1).
        drop_path: Probability of skipping a branch of the last block in training (stochastic depth, Huang et
            al. 2016); it grows linearly from 0 in the first block.
        checkpointing: Save memory in training: keep only what enters each block and compute the rest again on the way
            back, which takes about a third more time (see `run_blocks`).

    Raises:
        InputError: A size does not divide, or an option is out of range.
    """

    def __init__(
        self,
        image_size: Size3D,
        patch_size: Size3D,
        width: int = 384,
        depth: int = 6,
        heads: int = 6,
        mlp_ratio: float = 4.0,
        pooling: Literal["mean", "class"] = "mean",
        in_channels: int = 1,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        for name, rate in (("dropout", dropout), ("drop_path", drop_path)):
            if not 0 <= rate < 1:
                raise InputError(f"{name} is {rate}: give a probability in [0, 1)")
        if pooling not in ("mean", "class"):
            raise InputError(f"pooling is {pooling!r}: choose mean or class")
        if depth < 1 or in_channels < 1:
            raise InputError(f"depth {depth} and in_channels {in_channels} must both be at least 1")
        self.image_size: Size3D = _three("image_size", image_size)
        self.patch_size: Size3D = _three("patch_size", patch_size)
        if any(image % patch for image, patch in zip(self.image_size, self.patch_size, strict=True)):
            raise InputError(
                f"patch_size {self.patch_size} does not divide image_size {self.image_size}: "
                "every side must be a multiple of the patch's"
            )
        d, h, w = (image // patch for image, patch in zip(self.image_size, self.patch_size, strict=True))
        self.grid_size: Size3D = (d, h, w)
        self.n_patches = d * h * w
        self.in_channels = in_channels
        self.width = width
        self.heads = heads
        self.patch_voxels = in_channels * self.patch_size[0] * self.patch_size[1] * self.patch_size[2]
        self.n_layers = depth + 1
        self.checkpointing = checkpointing

        positions = sincos_positions(self.grid_size, width)
        self.register_buffer("positions", positions, persistent=False)
        self.positions: Tensor
        self.patch_embedding = nn.Linear(self.patch_voxels, width)
        self.class_token = nn.Parameter(torch.zeros(width)) if pooling == "class" else None
        self.blocks = nn.ModuleList(
            TransformerBlock(width, heads, mlp_ratio, dropout, drop_path * i / max(depth - 1, 1)) for i in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.apply(initialise_linear)
        if self.class_token is not None:
            nn.init.normal_(self.class_token, std=0.02)

    def forward(self, image: Tensor) -> Tensor:
        """Encodes whole volumes.

        Args:
            image: Volumes (B, C, D, H, W).

        Returns:
            Features (B, width).
        """
        tokens = self.tokens(image)
        return tokens.mean(dim=1) if self.class_token is None else tokens[:, 0]

    def tokens(self, image: Tensor, keep: Tensor | None = None) -> Tensor:
        """Encodes volumes, or only some patches of them; the other patches are never embedded.

        Args:
            image: Volumes (B, C, D, H, W).
            keep: int64 (B, K), the patches to encode; they count W fastest, then H, then D. None keeps all.

        Returns:
            Normalised tokens (B, K, width) in the order of `keep`; with a class token (B, K + 1, width), it
            first.
        """
        patches = self.patchify(image)  # (B, N, patch_voxels)
        return self.encode_patches(patches if keep is None else take_rows(patches, keep), keep)

    def encode_patches(self, patches: Tensor, index: Tensor | None = None) -> Tensor:
        """Encodes patches that are already cut out.

        Args:
            patches: Voxels (B, K, patch_voxels) as `patchify` orders them.
            index: int64 (B, K), where each patch lies; None: all patches, in order.

        Returns:
            The tokens, as `tokens` returns them.
        """
        tokens = self.patch_embedding(patches)  # (B, K, width)
        tokens = tokens + (self.positions if index is None else self.positions[index])
        if self.class_token is not None:
            token = self.class_token.to(tokens.dtype).expand(len(tokens), 1, -1)
            tokens = torch.cat([token, tokens], dim=1)  # (B, K + 1, width)
        return self.norm(run_blocks(self.blocks, tokens, recompute=self.checkpointing))

    def patchify(self, image: Tensor) -> Tensor:
        """Cuts volumes into patches.

        Args:
            image: Volumes (B, C, D, H, W).

        Returns:
            Voxels (B, N, C * d * h * w): patches count W fastest, then H, then D; within one (C, d, h, w).

        Raises:
            InputError: The volumes have another shape than the network was made for.
        """
        if image.shape[1:] != (self.in_channels, *self.image_size):
            raise InputError(
                f"volumes of (channels, D, H, W) = {tuple(image.shape[1:])} meet an encoder with image_size "
                f"{self.image_size} and in_channels {self.in_channels}: set both to the cohort's"
            )
        (gd, gh, gw), (d, h, w) = self.grid_size, self.patch_size
        blocks = image.reshape(len(image), self.in_channels, gd, d, gh, h, gw, w)
        return blocks.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(len(image), self.n_patches, self.patch_voxels)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Puts patches (B, N, C * d * h * w) back into volumes (B, C, D, H, W); undoes `patchify`."""
        (gd, gh, gw), (d, h, w) = self.grid_size, self.patch_size
        blocks = patches.reshape(len(patches), gd, gh, gw, self.in_channels, d, h, w)
        volumes = blocks.permute(0, 4, 1, 5, 2, 6, 3, 7)
        return volumes.reshape(len(patches), self.in_channels, *self.image_size)

    def layer_of(self, name: str) -> int:
        """Tells the depth of a parameter, for layer-wise learning rates (Bao et al., BEiT, ICLR 2022).

        Args:
            name: The parameter's name in this module.

        Returns:
            0 for the patch embedding and the class token, i + 1 for block i, `n_layers` for the final norm.
        """
        first, *rest = name.split(".")
        if first == "blocks":
            return int(rest[0]) + 1
        return self.n_layers if first == "norm" else 0


def _three(name: str, size: Size3D) -> Size3D:
    sides = tuple(size)
    if len(sides) != 3 or any(side < 1 for side in sides):
        raise InputError(f"{name} is {sides}: give three positive sides (D, H, W)")
    return sides[0], sides[1], sides[2]
