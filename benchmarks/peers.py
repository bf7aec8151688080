"""The networks that benchmarks compare with: MONAI's masked auto-encoder, and R(2+1)D in plain PyTorch.

Both take the sizes of poddistill's own networks by the same names, so that two sides differ in how they compute alone.
"""

import warnings

import torch
from monai.networks.nets import MaskedAutoEncoderViT
from torch import Tensor, nn

Size3D = tuple[int, int, int]


class MonaiMAE(nn.Module):
    """MONAI's `MaskedAutoEncoderViT` with the loss that it lacks: mean squared error over masked patches.

    Its decoder attends from every token to every token. The encoder has a class token, which MONAI offers no way to
    leave out, and biases in its attention, as poddistill's has. Positions are fixed sines and cosines; in a decoder
    whose width 6 does not divide, where MONAI has none, they are learned.

    Args:
        image_size: Voxels (D, H, W).
        patch_size: Voxels (d, h, w) of a patch; each divides its side of `image_size`.
        width: Channels of an encoder token, a multiple of 6 and of `heads`.
        depth: Encoder blocks.
        heads: Attention heads of an encoder block.
        decoder_width: Channels of a decoder token, a multiple of `decoder_heads`.
        decoder_depth: Decoder blocks.
        decoder_heads: Attention heads of a decoder block.
        mask_ratio: Part of the patches that is hidden, in (0, 1).
    """

    def __init__(
        self,
        image_size: Size3D,
        patch_size: Size3D,
        width: int = 384,
        depth: int = 6,
        heads: int = 6,
        decoder_width: int = 192,
        decoder_depth: int = 2,
        decoder_heads: int = 6,
        mask_ratio: float = 0.75,
    ) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.meshgrid")
            self.network = MaskedAutoEncoderViT(
                in_channels=1,
                img_size=image_size,
                patch_size=patch_size,
                hidden_size=width,
                mlp_dim=4 * width,
                num_layers=depth,
                num_heads=heads,
                masking_ratio=mask_ratio,
                decoder_hidden_size=decoder_width,
                decoder_mlp_dim=4 * decoder_width,
                decoder_num_layers=decoder_depth,
                decoder_num_heads=decoder_heads,
                decoder_pos_embed_type="learnable" if decoder_width % 6 else "sincos",
                qkv_bias=True,
            )

    def forward(self, volumes: Tensor) -> Tensor:
        """Returns the loss, a scalar, of volumes (B, 1, D, H, W) under random masks."""
        prediction, mask = self.network(volumes)  # (B, N, d h w), (B, N), 1 where masked
        error = (prediction - self.patchify(volumes)).square().mean(dim=2)  # (B, N)
        return (error * mask).sum() / mask.sum()

    def encode(self, volumes: Tensor) -> Tensor:
        """Returns features (B, width), the mean of all patches' tokens, of whole volumes (B, 1, D, H, W)."""
        tokens = self.network.patch_embedding(volumes)  # (B, N, width)
        tokens = torch.cat([self.network.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        return self.network.blocks(tokens)[:, 1:].mean(dim=1)

    def patchify(self, volumes: Tensor) -> Tensor:
        """Cuts volumes (B, 1, D, H, W) into patches (B, N, d h w) in the order of MONAI's tokens, W fastest."""
        d, h, w = self.network.patch_size
        patches = volumes.unfold(2, d, d).unfold(3, h, h).unfold(4, w, w)  # (B, 1, D / d, H / h, W / w, d, h, w)
        return patches.flatten(5).flatten(1, 4)


class PlainR2Plus1D(nn.Module):
    """R(2+1)D as torchvision publishes its `r2plus1d_18`: its blocks, its state dict, NCDHW and `nn.BatchNorm3d`.

    Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018. Its weights load into
    `poddistill.nets.r2plus1d.R2Plus1D` and the other way round. torchvision itself does not import beside a PyTorch
    for CPUs only; it has no `width`, no grey clips and no `subtract_mean`, which are arguments here.

    Args:
        width: Channels of the first stage; 64 is torchvision's.
        layers: Residual blocks of each of the four stages.
        in_channels: Channels of a clip.
        num_classes: Number of logits.
        subtract_mean: Take a clip's mean over time off first.
    """

    def __init__(
        self,
        width: int = 64,
        layers: tuple[int, int, int, int] = (2, 2, 2, 2),
        in_channels: int = 1,
        num_classes: int = 1,
        subtract_mean: bool = False,
    ) -> None:
        super().__init__()
        self.subtract_mean = subtract_mean
        stem = max(1, round(width * 45 / 64))
        self.stem = nn.Sequential(
            nn.Conv3d(in_channels, stem, kernel_size=(1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False),
            nn.BatchNorm3d(stem),
            nn.ReLU(inplace=True),
            nn.Conv3d(stem, width, kernel_size=(3, 1, 1), stride=(1, 1, 1), padding=(1, 0, 0), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
        planes = [width, width, 2 * width, 4 * width, 8 * width]
        for stage, blocks in enumerate(layers, start=1):
            inputs, outputs, stride = planes[stage - 1], planes[stage], 1 if stage == 1 else 2
            first = PlainBlock(inputs, outputs, stride)
            rest = [PlainBlock(outputs, outputs, 1) for _ in range(blocks - 1)]
            setattr(self, f"layer{stage}", nn.Sequential(first, *rest))
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(planes[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.fc.weight, 0, 0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, clips: Tensor) -> Tensor:
        """Classifies clips (B, C, T, H, W): logits (B,) if there is one class, else (B, num_classes)."""
        if self.subtract_mean:
            clips = clips - clips.mean(dim=2, keepdim=True)
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(clips)))))
        logits = self.fc(self.avgpool(x).flatten(1))
        return logits.squeeze(1) if logits.shape[1] == 1 else logits


class PlainBlock(nn.Module):
    """torchvision's `BasicBlock` of two `Conv2Plus1D`, with a 1x1x1 convolution in the shortcut where shapes change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        middle = inputs * outputs * 3 * 3 * 3 // (inputs * 3 * 3 + 3 * outputs)

        def conv(channels: int, step: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv3d(channels, middle, (1, 3, 3), stride=(1, step, step), padding=(0, 1, 1), bias=False),
                nn.BatchNorm3d(middle),
                nn.ReLU(inplace=True),
                nn.Conv3d(middle, outputs, (3, 1, 1), stride=(step, 1, 1), padding=(1, 0, 0), bias=False),
            )

        self.conv1 = nn.Sequential(conv(inputs, stride), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(conv(outputs, 1), nn.BatchNorm3d(outputs))
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv3d(inputs, outputs, kernel_size=1, stride=stride, bias=False), nn.BatchNorm3d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, inputs, T, H, W) to (B, outputs, T / stride, H / stride, W / stride)."""
        out = self.conv2(self.conv1(x))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)
