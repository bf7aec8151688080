"""The vision transformer against a slow one written out in loops, on shapes with every side different."""

import math

import pytest
import torch
from torch import Tensor

from data_modules.errors import InputError
from poddistill.nets.patches import sincos_positions, take_rows
from poddistill.nets.transformer import TransformerBlock
from poddistill.nets.vision_transformer import VisionTransformer3D

IMAGE, PATCH = (4, 6, 16), (2, 3, 4)  # a grid of 2 x 2 x 4


def make(pooling: str = "mean", **options) -> VisionTransformer3D:
    torch.manual_seed(1)
    network = VisionTransformer3D(IMAGE, PATCH, 14, 2, 2, pooling=pooling, in_channels=2, **options).eval()
    for parameter in network.parameters():  # biases and gains away from their neutral start
        torch.nn.init.normal_(parameter, std=0.3)
    return network


def volumes(n: int = 2) -> Tensor:
    return torch.rand(n, 2, *IMAGE, generator=torch.Generator().manual_seed(2))


def slow_patches(volume: Tensor, patch: tuple[int, int, int]) -> list[Tensor]:
    d, h, w = patch
    return [
        volume[:, z : z + d, y : y + h, x : x + w].flatten()
        for z in range(0, volume.shape[1], d)
        for y in range(0, volume.shape[2], h)
        for x in range(0, volume.shape[3], w)
    ]


def slow_position(cell: tuple[int, int, int], width: int) -> Tensor:
    n = width // 6
    code = []
    for index in cell:
        angles = [index / 10000 ** (j / n) for j in range(n)]
        code += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    return torch.tensor(code + [0.0] * (width - 6 * n))


def slow_norm(x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    centred = x - x.mean()
    return centred / (centred.square().mean() + norm.eps).sqrt() * norm.weight + norm.bias


def slow_block(tokens: list[Tensor], block: TransformerBlock) -> list[Tensor]:
    normed = [slow_norm(t, block.norm_attention) for t in tokens]
    attention, width = block.attention, len(tokens[0])
    rows = [attention.qkv.weight @ t + attention.qkv.bias for t in normed]
    per_head = width // attention.heads
    attended = []
    for row in rows:
        heads = []
        for h in range(attention.heads):
            part = slice(h * per_head, (h + 1) * per_head)
            query = row[:width][part]
            scores = torch.stack([query @ r[width : 2 * width][part] for r in rows]) / math.sqrt(per_head)
            weights = scores.exp() / scores.exp().sum()
            heads.append(sum(a * r[2 * width :][part] for a, r in zip(weights, rows, strict=True)))
        attended.append(attention.projection.weight @ torch.cat(heads) + attention.projection.bias)
    tokens = [t + a for t, a in zip(tokens, attended, strict=True)]
    out = []
    for token in tokens:
        hidden = block.mlp[0].weight @ slow_norm(token, block.norm_mlp) + block.mlp[0].bias
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        out.append(token + block.mlp[2].weight @ hidden + block.mlp[2].bias)
    return out


def slow_tokens(network: VisionTransformer3D, volume: Tensor, keep: list[int]) -> list[Tensor]:
    cells = [(z, y, x) for z in range(2) for y in range(2) for x in range(4)]
    patches = slow_patches(volume, PATCH)
    embedding = network.patch_embedding
    tokens = [embedding.weight @ patches[i] + embedding.bias + slow_position(cells[i], 14) for i in keep]
    if network.class_token is not None:
        tokens = [network.class_token, *tokens]
    for block in network.blocks:
        tokens = slow_block(tokens, block)
    return [slow_norm(t, network.norm) for t in tokens]


@pytest.mark.parametrize("pooling", ["mean", "class"])
def test_features_equal_a_slow_reference(pooling):
    network, image = make(pooling), volumes()
    for features, volume in zip(network(image), image, strict=True):
        tokens = slow_tokens(network, volume, list(range(16)))
        expected = torch.stack(tokens).mean(0) if pooling == "mean" else tokens[0]
        torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pooling", ["mean", "class"])
def test_kept_tokens_equal_a_slow_reference_in_the_order_asked_for(pooling):
    network, image = make(pooling), volumes()
    keep = torch.tensor([[13, 2, 7], [0, 15, 4]])
    tokens = network.tokens(image, keep)
    assert tokens.shape == (2, 3 + (pooling == "class"), 14)
    for row, volume, index in zip(tokens, image, keep.tolist(), strict=True):
        expected = torch.stack(slow_tokens(network, volume, index))
        torch.testing.assert_close(row, expected, atol=1e-5, rtol=1e-4)


def test_a_dropped_patch_does_not_reach_the_tokens():
    network, image = make(), volumes(1)
    keep = torch.tensor([[0, 1, 2, 3, 5, 6, 7]])
    before = network.tokens(image, keep)
    changed = image.clone()
    changed[:, :, 0:2, 3:6, 0:4] += 9  # patch 4: first in D and W, second in H
    assert torch.equal(network.tokens(changed, keep), before)
    assert not torch.allclose(network.tokens(changed), network.tokens(image))


def test_patches_count_w_fastest_and_come_back_in_place():
    network, image = make(), volumes(3)
    patches = network.patchify(image)
    for rows, volume in zip(patches, image, strict=True):
        assert torch.equal(rows, torch.stack(slow_patches(volume, PATCH)))
    assert torch.equal(network.unpatchify(patches), image)


@pytest.mark.parametrize("width", [6, 14, 96])
def test_positions_are_sines_and_cosines_of_the_grid_and_tell_all_cells_apart(width):
    cells = [(z, y, x) for z in range(2) for y in range(5) for x in range(3)]
    positions = sincos_positions((2, 5, 3), width)
    torch.testing.assert_close(positions, torch.stack([slow_position(cell, width) for cell in cells]))
    assert len(positions.unique(dim=0)) == len(cells)


def test_take_rows_picks_each_samples_own_rows_and_sends_gradients_there():
    rows = torch.rand(3, 5, 2, requires_grad=True)
    index = torch.tensor([[4, 0], [1, 1], [2, 3]])
    taken = take_rows(rows, index)
    assert torch.equal(taken, torch.stack([rows[b][index[b]] for b in range(3)]))
    taken.sum().backward()
    counts = torch.stack([torch.bincount(i, minlength=5) for i in index])
    assert torch.equal(rows.grad, counts[:, :, None].expand(3, 5, 2).float())


def test_weights_load_at_another_image_size():
    network = make()
    larger = VisionTransformer3D((6, 6, 8), PATCH, 14, 2, 2, in_channels=2)
    larger.load_state_dict(network.state_dict())
    assert larger(torch.rand(1, 2, 6, 6, 8)).shape == (1, 14)


def test_layers_count_from_the_embedding_to_the_final_norm():
    network = make("class")
    assert network.n_layers == 3
    layers = {name: network.layer_of(name) for name, _ in network.named_parameters()}
    assert layers["patch_embedding.weight"] == layers["class_token"] == 0
    assert layers["blocks.0.norm_mlp.bias"] == 1
    assert layers["blocks.1.attention.qkv.weight"] == 2
    assert layers["norm.weight"] == 3


def test_drop_path_skips_a_branch_of_a_sample_as_often_as_asked_and_keeps_its_mean():
    torch.manual_seed(0)
    block = TransformerBlock(6, 1, drop_path=0.4)
    for parameter in block.mlp[2].parameters():  # leaves the attention branch alone to look at
        torch.nn.init.zeros_(parameter)
    tokens = torch.rand(1, 3, 6).expand(4000, 3, 6)
    change = (block(tokens) - tokens).flatten(1)
    skipped = change.abs().amax(1) == 0
    assert skipped.float().mean().item() == pytest.approx(0.4, abs=0.03)
    full = (block.eval()(tokens) - tokens).flatten(1)
    torch.testing.assert_close(change[~skipped], full[~skipped] / 0.6, atol=1e-6, rtol=1e-5)


def test_drop_path_grows_with_depth():
    network = VisionTransformer3D(IMAGE, PATCH, 12, 3, 2, drop_path=0.3)
    assert [block.drop_path for block in network.blocks] == pytest.approx([0.0, 0.15, 0.3])


def test_bf16_autocast_stays_close():
    network, image = make("class"), volumes()
    with torch.autocast("cpu", torch.bfloat16):
        features = network(image)
    torch.testing.assert_close(features.float(), network(image), atol=0.1, rtol=0.1)


def test_compiles_to_one_graph():
    network, image = make("class"), volumes()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(image), network(image))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"patch_size": (2, 4, 4)}, "does not divide image_size"),
        ({"patch_size": (2, 3)}, "patch_size is (2, 3)"),
        ({"image_size": (0, 6, 16)}, "image_size is (0, 6, 16)"),
        ({"heads": 5}, "5 attention heads do not divide a width of 12"),
        ({"width": 4, "heads": 2}, "at least 6"),
        ({"depth": 0}, "depth 0"),
        ({"pooling": "max"}, "pooling is 'max'"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"drop_path": -0.1}, "drop_path is -0.1"),
    ],
)
def test_bad_options_are_told_in_one_line(options, words):
    with pytest.raises(InputError) as error:
        VisionTransformer3D(**{"image_size": IMAGE, "patch_size": PATCH, "width": 12, "heads": 2, **options})
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_volumes_with_height_and_width_swapped_are_refused():
    with pytest.raises(InputError, match="set both to the cohort's"):
        make()(torch.rand(1, 2, 4, 16, 6))
