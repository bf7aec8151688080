import copy

import pytest
import torch
from torch.nn import functional

from data_modules.errors import InputError
from poddistill.nets.shared import share_blocks
from poddistill.nets.vision_transformer import VisionTransformer3D

VOLUME, CLIP = (8, 16, 16), (8, 12, 20)


def encoders(**options: object) -> tuple[VisionTransformer3D, VisionTransformer3D]:
    """Of volumes and of clips, in other sizes and patches."""
    torch.manual_seed(0)
    sizes = {"width": 24, "depth": 2, "heads": 2}
    return (
        VisionTransformer3D(VOLUME, (4, 4, 4), **sizes),  # type: ignore[arg-type]
        VisionTransformer3D(CLIP, (2, 4, 4), **{**sizes, **options}),  # type: ignore[arg-type]
    )


def by_hand(one: VisionTransformer3D, other: VisionTransformer3D, clip: torch.Tensor) -> torch.Tensor:
    """The clip's tokens with the stem and the norms of `other` and all else of `one`."""
    tokens = other.patch_embedding(other.patchify(clip)) + other.positions
    for lending, own in zip(one.blocks, other.blocks, strict=True):
        tokens = tokens + lending.attention(own.norm_attention(tokens))
        hidden = functional.gelu(lending.mlp[0](own.norm_mlp(tokens)))
        tokens = tokens + lending.mlp[2](hidden)
    return other.norm(tokens)


def test_the_second_encoder_has_its_own_stem_and_norms_and_the_first_ones_blocks() -> None:
    one, other = encoders()
    for parameter in [*one.parameters(), *other.parameters()]:  # else both begin with the same norms
        torch.nn.init.normal_(parameter, std=0.2)
    kept, clip = copy.deepcopy(one), torch.rand(2, 1, *CLIP)
    share_blocks(one, other)
    torch.testing.assert_close(other.tokens(clip), by_hand(kept, other, clip))
    volume = torch.rand(2, 1, *VOLUME)
    assert torch.equal(one(volume), kept(volume)), "the encoder that lends stays as it is"


def test_what_one_modality_learns_in_the_blocks_the_other_has() -> None:
    one, other = encoders()
    share_blocks(one, other)
    other(torch.rand(2, 1, *CLIP)).square().sum().backward()
    reached = {name for name, parameter in one.named_parameters() if parameter.grad is not None}
    assert reached == {name for name, _ in one.named_parameters() if ".attention." in name or ".mlp." in name}
    lent = {id(parameter) for parameter in one.parameters()}
    for name, parameter in other.named_parameters():
        assert parameter.grad is not None
        assert (id(parameter) in lent) == (name in reached), name


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("width", 48, "width is 24 in one encoder and 48 in the other"),
        ("depth", 3, "depth is 2 in one encoder and 3 in the other"),
        ("heads", 4, "heads is 2 in one encoder and 4 in the other"),
        ("mlp_ratio", 2.0, "mlp_ratio is 4 in one encoder and 2 in the other"),
    ],
)
def test_encoders_whose_blocks_differ_are_refused(option: str, value: float, message: str) -> None:
    with pytest.raises(InputError, match=f"{message}.*give both the same {option}"):
        share_blocks(*encoders(**{option: value}))
