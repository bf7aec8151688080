"""Transformer blocks shared by two encoders, such as that of MRI volumes and that of ultrasound clips."""

from torch import nn

from data_modules.errors import InputError
from poddistill.nets.transformer import TransformerBlock
from poddistill.nets.vision_transformer import VisionTransformer3D


def share_blocks(one: VisionTransformer3D, other: VisionTransformer3D) -> None:
    """Makes the second encoder's blocks attend and compute by the first one's attention and MLP, by reference.

    Each encoder keeps its own stem (patch embedding, positions, class token), all its layer norms and its dropout. The
    second one's attention and MLP are given up, so share before an optimiser is made or weights are loaded.

    All weights shared and only the norms a modality's own, for images of different patients: Dou et al., "Unpaired
    Multi-modal Segmentation via Knowledge Distillation", IEEE TMI 2020 (arXiv 2001.03111), who do so with convolutions
    on CT and MRI. That attention and MLP are what is shared, and the patch embedding is not, is ours.

    Args:
        one: The encoder that lends its blocks.
        other: The encoder that uses them; may have images and patches of another size.

    Raises:
        InputError: Width, depth, heads or mlp_ratio differ.
    """
    sizes, others = _sizes(one), _sizes(other)
    for name, size in sizes.items():
        if size != others[name]:
            raise InputError(
                f"{name} is {size:g} in one encoder and {others[name]:g} in the other, but they share their blocks: "
                f"give both the same {name}"
            )
    for lending, using in zip(one.blocks, other.blocks, strict=True):
        using.attention, using.mlp = lending.attention, lending.mlp


def _sizes(encoder: VisionTransformer3D) -> dict[str, float]:
    block = encoder.blocks[0]
    assert isinstance(block, TransformerBlock)
    hidden = block.mlp[0]
    assert isinstance(hidden, nn.Linear)
    return {
        "width": encoder.width,
        "depth": len(encoder.blocks),
        "heads": block.attention.heads,
        "mlp_ratio": hidden.out_features / encoder.width,
    }
