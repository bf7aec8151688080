"""MONAI's 3D residual and dense networks as encoders: a volume in, one feature vector out.

They start from scratch: `init_encoder` must be null, for the weights of a masked auto-encoder are a transformer's. Nor
do they tell how deep a parameter lies, so the optimiser's `layer_decay` must be 1.
"""

from typing import Literal

from monai.networks.nets.densenet import DenseNet
from monai.networks.nets.resnet import ResNet
from torch import Tensor, nn

from data_modules.errors import InputError


class ResNet3D(nn.Module):
    """Encodes volumes with a 3D residual network, whose last map is averaged over space.

    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016 (arXiv 1512.03385), in MONAI's implementation.
    The stem divides the sides by `stem_stride`, and once more by 2 with `stem_pool`; each of the last three stages
    halves them. The defaults suit volumes of 16 x 48 x 48 voxels and few labels. The usual stem is a `stem_kernel` and
    a `stem_stride` of 7 and 2 along all sides, with `stem_pool`; 64, 128, 256 and 512 are the usual widths, and
    `layers` (1, 1, 1, 1), (2, 2, 2, 2) and (3, 4, 6, 3) make a ResNet-10, -18 and -34.

    Attributes:
        width: Number of features: the last of `widths`, times 4 with bottlenecks.

    Args:
        layers: Residual blocks of each of the four stages.
        widths: Channels of each of the four stages.
        block: `basic`, two convolutions a block, or `bottleneck`, three and four times as many channels at its end.
        stem_kernel: Voxels (d, h, w) of the first convolution; odd.
        stem_stride: Its strides along D, H and W.
        stem_pool: Whether a pooling by the maximum follows the stem.
        in_channels: Channels of the volume.

    Raises:
        InputError: An option is out of range.
    """

    def __init__(
        self,
        layers: tuple[int, int, int, int] = (1, 1, 1, 1),
        widths: tuple[int, int, int, int] = (16, 32, 64, 128),
        block: Literal["basic", "bottleneck"] = "basic",
        stem_kernel: tuple[int, int, int] = (3, 7, 7),
        stem_stride: tuple[int, int, int] = (1, 2, 2),
        stem_pool: bool = False,
        in_channels: int = 1,
    ) -> None:
        super().__init__()
        _check_numbers("layers", layers, 4)
        _check_numbers("widths", widths, 4)
        _check_numbers("stem_kernel", stem_kernel, 3)
        _check_numbers("stem_stride", stem_stride, 3)
        _check_numbers("in_channels", (in_channels,), 1)
        if block not in ("basic", "bottleneck"):
            raise InputError(f"block is {block!r}: choose basic or bottleneck")
        if not all(side % 2 for side in stem_kernel):
            raise InputError(f"stem_kernel is {tuple(stem_kernel)}: give odd sides")
        self.network = ResNet(
            block,
            layers=list(layers),
            block_inplanes=list(widths),
            n_input_channels=in_channels,
            conv1_t_size=tuple(stem_kernel),  # type: ignore[arg-type]
            conv1_t_stride=tuple(stem_stride),  # type: ignore[arg-type]
            no_max_pool=not stem_pool,
            feed_forward=False,
        )
        self.width = self.network.in_planes

    def forward(self, volume: Tensor) -> Tensor:
        """Returns the features (B, width) of volumes (B, C, D, H, W)."""
        return self.network(volume)


class DenseNet3D(nn.Module):
    """Encodes volumes with a 3D densely connected network, whose last map is averaged over space.

    Huang et al., "Densely Connected Convolutional Networks", CVPR 2017 (arXiv 1608.06993), in MONAI's implementation.
    The stem divides the sides by 4, rounding up, and each further block halves them, rounding down. The defaults suit
    volumes of 16 x 48 x 48 voxels and few labels; a `growth_rate` of 32, 64 `init_features` and the blocks
    (6, 12, 24, 16) make a DenseNet-121.

    Attributes:
        width: Number of features.

    Args:
        growth_rate: Channels that a layer adds.
        block_config: Layers of each block.
        init_features: Channels of the stem.
        dropout: Probability of dropping a channel of what a layer adds, in [0, 1).
        in_channels: Channels of the volume.

    Raises:
        InputError: An option is out of range.
    """

    def __init__(
        self,
        growth_rate: int = 8,
        block_config: tuple[int, ...] = (4, 4, 4),
        init_features: int = 16,
        dropout: float = 0.0,
        in_channels: int = 1,
    ) -> None:
        super().__init__()
        _check_numbers("growth_rate", (growth_rate,), 1)
        _check_numbers("block_config", block_config, max(len(block_config), 1))
        _check_numbers("init_features", (init_features,), 1)
        _check_numbers("in_channels", (in_channels,), 1)
        if not 0 <= dropout < 1:
            raise InputError(f"dropout is {dropout}: give a probability in [0, 1)")
        self.network = DenseNet(
            spatial_dims=3,
            in_channels=in_channels,
            out_channels=1,
            init_features=init_features,
            growth_rate=growth_rate,
            block_config=tuple(block_config),
            dropout_prob=dropout,
        )
        classifier = self.network.class_layers.get_submodule("out")
        assert isinstance(classifier, nn.Linear)
        self.width = classifier.in_features
        self.network.class_layers.out = nn.Identity()
        self.smallest_side = 2 ** (len(block_config) + 1) - 3  # of which something is left after the last halving

    def forward(self, volume: Tensor) -> Tensor:
        """Returns the features (B, width) of volumes (B, C, D, H, W).

        Raises:
            InputError: The blocks halve a side until nothing is left of it.
        """
        if min(volume.shape[2:]) < self.smallest_side:
            raise InputError(
                f"volumes of {tuple(volume.shape[2:])} voxels are too small for the blocks of block_config, which need "
                f"sides of at least {self.smallest_side}: give fewer blocks"
            )
        return self.network(volume)


def _check_numbers(name: str, numbers: tuple[int, ...], n: int) -> None:
    if len(numbers) != n or min(numbers) < 1:
        given = numbers[0] if n == len(numbers) == 1 else tuple(numbers)
        raise InputError(f"{name} is {given}: give {n if n > 1 else 'a number'} of at least 1")
