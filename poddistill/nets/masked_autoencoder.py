"""A 3D masked auto-encoder: hide most patches of a volume, and learn by filling them in.

He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022; its cross-attention decoder is that
of Fu et al., "Rethinking Patch Dependence for Masked Autoencoders" (CrossMAE), 2024.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from data_modules.errors import InputError
from poddistill.nets.patches import sincos_positions, take_rows
from poddistill.nets.transformer import TransformerBlock, initialise_linear, run_blocks
from poddistill.nets.vision_transformer import VisionTransformer3D


class MAEOutput(NamedTuple):
    """What a masked auto-encoder makes of a batch.

    Attributes:
        loss: Scalar, mean squared error over the voxels of the predicted patches.
        prediction: (B, M, patch_voxels), the patches as predicted (standardised with `normalise_targets`).
        predicted: int64 (B, M), which patches these are: all masked ones, or in training `prediction_ratio` of them.
        visible: int64 (B, K), which patches were encoded.
        case_loss: (B,), the mean squared error of each case, which `loss` is the mean of; None in training.
    """

    loss: Tensor
    prediction: Tensor
    predicted: Tensor
    visible: Tensor
    case_loss: Tensor | None


class Reconstruction(NamedTuple):
    """A filled-in batch of volumes.

    Attributes:
        volume: (B, C, D, H, W), the input where it was visible, the prediction where it was masked.
        mask: bool (B, 1, D, H, W), true where masked.
    """

    volume: Tensor
    mask: Tensor


class MaskedAutoEncoder3D(nn.Module):
    """Encodes the visible patches of a volume and predicts the voxels of the masked ones.

    The self-attention decoder (He et al.) lets visible tokens and mask tokens all attend to each other; in
    the cross-attention decoder (Fu et al.) mask tokens attend to the visible tokens alone, which is cheaper
    and, by their figures, as good downstream. There a masked patch that nobody predicts changes nothing for the
    others, so a training may predict only some of them. That the visible tokens get the decoder's positions there too,
    and that it is the default, is ours.

    Args:
        encoder: The network to pre-train.
        decoder_width: Channels of a decoder token; at least 6, a multiple of `decoder_heads`.
        decoder_depth: Number of decoder blocks.
        decoder_heads: Attention heads of a decoder block.
        mask_ratio: Part of the patches that is hidden, in (0, 1). round((1 - mask_ratio) * N) of N patches
            stay visible, at least one and at most N - 1.
        decoder: `cross` or `self` attention.
        normalise_targets: Predict every patch standardised by its own mean and deviation instead of its raw
            voxels.
        prediction_ratio: Part of the masked patches that is predicted in training, in (0, 1], drawn anew for every
            sample; below 1 only with the `cross` decoder. Otherwise all are.

    Raises:
        InputError: An option is out of range, or the encoder has a single patch.
    """

    def __init__(
        self,
        encoder: VisionTransformer3D,
        decoder_width: int = 192,
        decoder_depth: int = 2,
        decoder_heads: int = 6,
        mask_ratio: float = 0.75,
        decoder: Literal["cross", "self"] = "cross",
        normalise_targets: bool = False,
        prediction_ratio: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 < mask_ratio < 1:
            raise InputError(f"mask_ratio is {mask_ratio}: give a part between 0 and 1")
        if decoder not in ("cross", "self"):
            raise InputError(f"decoder is {decoder!r}: choose cross or self")
        if decoder_depth < 1:
            raise InputError(f"decoder_depth is {decoder_depth}: give at least 1")
        if not 0 < prediction_ratio <= 1:
            raise InputError(f"prediction_ratio is {prediction_ratio}: give a part above 0, at most 1")
        if prediction_ratio < 1 and decoder == "self":
            raise InputError(
                f"prediction_ratio is {prediction_ratio}, but masked patches attend to each other in the self decoder: "
                "set it to 1, or choose decoder cross"
            )
        if encoder.n_patches < 2:
            raise InputError(f"patch_size {encoder.patch_size} makes a single patch: nothing can be masked")
        self.encoder = encoder
        self.n_visible = min(max(round((1 - mask_ratio) * encoder.n_patches), 1), encoder.n_patches - 1)
        self.n_predicted = max(round(prediction_ratio * (encoder.n_patches - self.n_visible)), 1)
        self.cross = decoder == "cross"
        self.normalise_targets = normalise_targets

        positions = sincos_positions(encoder.grid_size, decoder_width)
        self.register_buffer("positions", positions, persistent=False)
        self.positions: Tensor
        self.embedding = nn.Linear(encoder.width, decoder_width)
        self.mask_token = nn.Parameter(torch.empty(decoder_width))
        self.blocks = nn.ModuleList(
            TransformerBlock(decoder_width, decoder_heads, cross=self.cross) for _ in range(decoder_depth)
        )
        self.norm = nn.LayerNorm(decoder_width)
        self.prediction = nn.Linear(decoder_width, encoder.patch_voxels)
        for module in (self.embedding, self.blocks, self.prediction):
            module.apply(initialise_linear)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, image: Tensor, noise: Tensor | None = None) -> MAEOutput:
        """Masks, encodes, predicts and scores a batch.

        Args:
            image: Volumes (B, C, D, H, W).
            noise: (B, N), the patches with the smallest values stay visible; None draws it from torch's
                global generator.

        Returns:
            Loss, predictions and the predicted and visible patches.
        """
        patches = self.encoder.patchify(image)  # (B, N, patch_voxels)
        return self._fill_in(patches, noise, self.n_predicted if self.training else None)

    def _fill_in(self, patches: Tensor, noise: Tensor | None, n_predicted: int | None) -> MAEOutput:
        """As `forward`, from patches (B, N, patch_voxels); None predicts every masked one."""
        if noise is None:
            noise = torch.rand(patches.shape[:2], device=patches.device)
        order = noise.argsort(dim=1)  # (B, N)
        visible, masked = order[:, : self.n_visible], order[:, self.n_visible :]
        predicted = masked[:, :n_predicted]  # in random order already
        tokens = self.encoder.encode_patches(take_rows(patches, visible), visible)  # (B, K or K + 1, width)
        prediction = self.decode(tokens, visible, predicted)  # (B, M, patch_voxels)
        target = take_rows(patches, predicted).float()
        if self.normalise_targets:
            mean, deviation = _patch_moments(target)
            target = (target - mean) / deviation
        if self.training:  # without the squares of each voxel in memory
            loss = functional.mse_loss(prediction.float(), target)
            return MAEOutput(loss, prediction, predicted, visible, None)
        case_loss = functional.mse_loss(prediction.float(), target, reduction="none").mean((1, 2))  # (B,)
        return MAEOutput(case_loss.mean(), prediction, predicted, visible, case_loss)

    def decode(self, tokens: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Predicts masked patches from the encoder's tokens.

        Args:
            tokens: (B, K, width) or, with a class token first, (B, K + 1, width).
            visible: int64 (B, K), the patches that the tokens stand for.
            masked: int64 (B, M), the patches to predict.

        Returns:
            Predicted voxels (B, M, patch_voxels).
        """
        context = self.embedding(tokens)
        n_class = tokens.shape[1] - visible.shape[1]  # the class token has no position
        context = torch.cat([context[:, :n_class], context[:, n_class:] + self.positions[visible]], dim=1)
        queries = self.mask_token + self.positions[masked]  # (B, M, decoder_width)
        recompute = self.encoder.checkpointing
        if self.cross:
            queries = run_blocks(self.blocks, queries, context, recompute)
        else:
            # Attention does not see the order of its tokens, so they need not be sorted back into the grid.
            joint = torch.cat([context, queries], dim=1)  # (B, K + M or K + 1 + M, decoder_width)
            queries = run_blocks(self.blocks, joint, recompute=recompute)[:, -masked.shape[1] :]
        return self.prediction(self.norm(queries))

    def case_noise(self, index: Tensor) -> Tensor:
        """Returns noise (B, N) whose order is the mask, drawn from each case's index (B,) alone."""
        n = self.encoder.n_patches
        rows = [torch.rand(n, generator=torch.Generator().manual_seed(int(i))) for i in index]
        return torch.stack(rows).to(index.device)

    @torch.no_grad()
    def reconstruct(self, image: Tensor, noise: Tensor | None = None) -> Reconstruction:
        """Fills in masked patches, to look at.

        With `normalise_targets` a predicted patch gets the true patch's mean and deviation back, as in the
        figures of He et al.

        Args:
            image: Volumes (B, C, D, H, W).
            noise: As in `forward`.

        Returns:
            The volumes with predicted patches pasted in, and where those are.
        """
        patches = self.encoder.patchify(image)  # (B, N, patch_voxels)
        output = self._fill_in(patches, noise, None)
        prediction, masked = output.prediction.float(), output.predicted
        if self.normalise_targets:
            mean, deviation = _patch_moments(take_rows(patches, masked).float())
            prediction = prediction * deviation + mean
        rows = masked[:, :, None].expand(-1, -1, self.encoder.patch_voxels)
        volume = self.encoder.unpatchify(patches.scatter(1, rows, prediction.to(patches.dtype)))
        hidden = torch.zeros_like(patches, dtype=torch.bool).scatter(1, rows, True)
        return Reconstruction(volume, self.encoder.unpatchify(hidden)[:, :1])


def _patch_moments(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (B, M, 1) of each patch; 1e-6 is added to the variance."""
    variance, mean = torch.var_mean(patches, dim=2, keepdim=True)
    return mean, (variance + 1e-6).sqrt()
