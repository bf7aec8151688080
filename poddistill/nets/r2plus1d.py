"""R(2+1)D, the video network of the ultrasound teacher: 3D convolutions split into space, then time.

Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from data_modules.errors import InputError
from poddistill.nets.batch_norm import BatchNorm3d
from poddistill.nets.head import Head

Size3D = tuple[int, int, int]
HEAD = ("fc.weight", "fc.bias")
FIRST = "stem.0.weight"


class R2Plus1D(nn.Module):
    """Classifies clips with an R(2+1)D residual network.

    At `width` 64 and two blocks a stage this is torchvision's `r2plus1d_18`, key for key of its state dict.
    Space is halved in the stem and space and time in each of the last three stages, so a clip should have at
    least 8 frames and sides of 16 pixels.

    Args:
        width: Channels of the first stage; the next ones have 2, 4 and 8 times as many.
        layers: Residual blocks of each of the four stages.
        in_channels: Channels of a clip; 1 for grey.
        num_classes: Number of logits.
        subtract_mean: Whether a clip's mean over time is taken off first, so that only what moves is left (ours). A
            short training on few clips finds the motion sooner so.

    Raises:
        InputError: A number is below 1.
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
        if len(layers) != 4 or min(width, in_channels, num_classes, *layers) < 1:
            raise InputError(
                f"width {width}, in_channels {in_channels}, num_classes {num_classes} and the four layers "
                f"{tuple(layers)} must all be at least 1"
            )
        self.in_channels = in_channels
        self.subtract_mean = subtract_mean
        middle = max(1, round(width * 45 / 64))  # torchvision has 45 channels at width 64
        self.stem = nn.Sequential(
            Conv3d(in_channels, middle, (1, 7, 7), stride=(1, 2, 2)),
            BatchNorm3d(middle),
            nn.ReLU(inplace=True),
            Conv3d(middle, width, (3, 1, 1)),
            BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
        self.layer1 = _stage(width, width, layers[0], stride=1)
        self.layer2 = _stage(width, 2 * width, layers[1], stride=2)
        self.layer3 = _stage(2 * width, 4 * width, layers[2], stride=2)
        self.layer4 = _stage(4 * width, 8 * width, layers[3], stride=2)
        self.n_features = 8 * width
        self.fc = Head(self.n_features, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, clip: Tensor) -> Tensor:
        """Classifies clips (B, C, T, H, W): logits (B,) if there is one class, else (B, num_classes)."""
        return self.logits(self.features(clip))

    def logits(self, features: Tensor) -> Tensor:
        """Classifies features (B, 8 * width) as `features` returns them: logits (B,), or (B, num_classes)."""
        logits = self.fc(features)
        return logits.squeeze(1) if logits.shape[1] == 1 else logits

    def features(self, clip: Tensor) -> Tensor:
        """Encodes clips (B, C, T, H, W) into the features (B, 8 * width) that the head reads.

        Raises:
            InputError: The clips have another number of channels than `in_channels`.
        """
        if clip.shape[1] != self.in_channels:
            raise InputError(
                f"clips of {clip.shape[1]} channels meet a network with in_channels {self.in_channels}: "
                "set in_channels to the clips'"
            )
        if self.subtract_mean:
            clip = clip - clip.mean(dim=2, keepdim=True)
        if clip.device.type == "cpu":
            # With channels last oneDNN trains half as fast again; the layout passes from layer to layer.
            clip = clip.to(memory_format=torch.channels_last_3d)
        x = self.stem(clip)  # (B, width, T, H / 2, W / 2)
        x = self.layer1(x)
        x = self.layer2(x)
        x = self.layer3(x)
        x = self.layer4(x)  # (B, 8 width, T / 8, H / 16, W / 16)
        return x.mean(dim=(2, 3, 4), dtype=self.fc.weight.dtype)

    def load_kinetics(self, path: str | Path) -> None:
        """Starts from weights in torchvision's `r2plus1d_18` format, such as those trained on Kinetics-400.

        Two things are adapted: the file's head is left out (this network keeps its own), and a first layer of
        several channels is summed into one where the network takes grey clips: the answer to a grey clip
        repeated over the channels. Kinetics clips were standardised; for grey levels in [0, 1] the first
        batch norm makes up for it.

        Args:
            path: A state dict, or a dict that holds one as `state_dict`.

        Raises:
            InputError: The file cannot be read, or a weight is missing, unknown or of another shape.
        """
        weights = _read_state_dict(Path(path))
        own = {key: value for key, value in self.state_dict().items() if key not in HEAD}
        first = weights.get(FIRST)
        if self.in_channels == 1 and first is not None and first.ndim == 5:
            weights[FIRST] = first.sum(dim=1, keepdim=True)
        # Files older than torch 0.4.1 lack the step counters of batch norms, which nothing here reads.
        counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
        weights = counters | {key: value for key, value in weights.items() if key not in HEAD}
        for key in [*own, *weights]:
            here, there = (tuple(w[key].shape) if key in w else "absent" for w in (own, weights))
            if here != there:
                raise InputError(
                    f"{path}: does not fit the network: {key} is {there} in the file and {here} in the network; "
                    "give an r2plus1d_18 state dict, width 64, layers [2, 2, 2, 2] and in_channels 1 or 3"
                )
        self.load_state_dict(weights, strict=False)


class Conv3d(nn.Conv3d):
    """A convolution without bias that stays in float32 on a CPU where its input is shorter than its kernel.

    There, oneDNN's gradient of bfloat16 weights is now and then uninitialised memory (PyTorch 2.13: 3x1x1 over two
    frames, 1x3x3 over one pixel at stride 2), and one such step turns a training into nan.
    """

    def __init__(self, inputs: int, outputs: int, size: Size3D, stride: Size3D = (1, 1, 1)) -> None:
        padding = (size[0] // 2, size[1] // 2, size[2] // 2)
        super().__init__(inputs, outputs, size, stride=stride, padding=padding, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, inputs, T, H, W) to (B, outputs, T / stride, H / stride, W / stride)."""
        if x.device.type == "cpu" and any(side < k for side, k in zip(x.shape[2:], self.kernel_size, strict=True)):
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.to(self.weight.dtype))
        return super().forward(x)


class Conv2Plus1D(nn.Sequential):
    """A 3x3x3 convolution as 1x3x3 in space into `middle` channels, batch norm, ReLU, and 3x1x1 in time."""

    def __init__(self, inputs: int, outputs: int, middle: int, stride: int) -> None:
        super().__init__(
            Conv3d(inputs, middle, (1, 3, 3), stride=(1, stride, stride)),
            BatchNorm3d(middle),
            nn.ReLU(inplace=True),
            Conv3d(middle, outputs, (3, 1, 1), stride=(stride, 1, 1)),
        )


class BasicBlock(nn.Module):
    """Two (2+1)D convolutions with a shortcut around them.

    Both have as many middle channels as give the first one the parameters of a full 3x3x3 convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        middle = (inputs * outputs * 27) // (inputs * 9 + 3 * outputs)
        self.conv1 = nn.Sequential(
            Conv2Plus1D(inputs, outputs, middle, stride), BatchNorm3d(outputs), nn.ReLU(inplace=True)
        )
        self.conv2 = nn.Sequential(Conv2Plus1D(outputs, outputs, middle, 1), BatchNorm3d(outputs))
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                Conv3d(inputs, outputs, (1, 1, 1), stride=(stride,) * 3), BatchNorm3d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, inputs, T, H, W) to (B, outputs, T / stride, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.conv2(self.conv1(x)) + shortcut)


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    rest = (BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1))
    return nn.Sequential(BasicBlock(inputs, outputs, stride), *rest)


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of the Kinetics weights")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch.load answers a damaged file with almost any exception.
        reason = type(error).__name__
        raise InputError(f"{path}: not a readable file of weights ({reason}); download it again") from error
    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise InputError(f"{path}: holds no state dict; give an r2plus1d_18 file of named weights")
    return dict(weights)
