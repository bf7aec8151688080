"""The masked auto-encoder: what it sees, what it predicts, what its loss counts."""

import math

import pytest
import torch
from torch import Tensor

from data_modules.errors import InputError
from poddistill.nets.masked_autoencoder import MaskedAutoEncoder3D
from poddistill.nets.transformer import TransformerBlock
from poddistill.nets.vision_transformer import VisionTransformer3D

IMAGE, PATCH = (4, 6, 16), (2, 3, 4)
CELLS = [(z, y, x) for z in range(0, 4, 2) for y in range(0, 6, 3) for x in range(0, 16, 4)]
KINDS = [("cross", "mean"), ("cross", "class"), ("self", "mean"), ("self", "class")]


def make(decoder: str = "cross", pooling: str = "mean", **options) -> MaskedAutoEncoder3D:
    torch.manual_seed(1)
    encoder = VisionTransformer3D(IMAGE, PATCH, 12, 1, 2, pooling=pooling, in_channels=2)
    network = MaskedAutoEncoder3D(encoder, 18, 2, 3, decoder=decoder, **options)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(3, 2, *IMAGE, generator=generator), torch.rand(3, 16, generator=generator)


def crop(volume: Tensor, patch: int) -> Tensor:
    z, y, x = CELLS[patch]
    return volume[:, z : z + 2, y : y + 3, x : x + 4]


def slow_attention(query: Tensor, context: Tensor, block: TransformerBlock) -> Tensor:
    width, heads = len(query), block.attention.heads
    wq, wk, wv = block.attention.qkv.weight.split(width)
    bq, bk, bv = block.attention.qkv.bias.split(width)
    q, k, v = wq @ query + bq, context @ wk.T + bk, context @ wv.T + bv
    out = []
    for part in torch.arange(width).chunk(heads):
        weights = torch.softmax(k[:, part] @ q[part] / math.sqrt(width // heads), dim=0)
        out.append(weights @ v[:, part])
    return block.attention.projection(torch.cat(out))


def slow_decode(network: MaskedAutoEncoder3D, tokens: Tensor, visible: list[int], masked: list[int]) -> Tensor:
    n_class = len(tokens) - len(visible)
    context = network.embedding(tokens)
    context = torch.stack(
        [c + network.positions[visible[i - n_class]] if i >= n_class else c for i, c in enumerate(context)]
    )
    queries = torch.stack([network.mask_token + network.positions[i] for i in masked])
    if not network.cross:
        queries = torch.cat([queries, context])  # the other way round than in the network
    for block in network.blocks:
        normed = torch.stack([block.norm_attention(q) for q in queries])
        seen = block.norm_context(context) if network.cross else normed
        queries = torch.stack([q + slow_attention(n, seen, block) for q, n in zip(queries, normed, strict=True)])
        queries = torch.stack([q + block.mlp(block.norm_mlp(q)) for q in queries])
    return network.prediction(network.norm(queries[: len(masked)]))


@pytest.mark.parametrize("normalise_targets", [False, True])
@pytest.mark.parametrize(("decoder", "pooling"), KINDS)
def test_prediction_and_loss_equal_a_slow_reference(decoder, pooling, normalise_targets):
    network = make(decoder, pooling, normalise_targets=normalise_targets, mask_ratio=0.7)
    image, noise = batch()
    out = network(image, noise)
    errors = []
    for b in range(3):
        order = sorted(range(16), key=lambda i: noise[b, i].item())
        visible, masked = order[:5], order[5:]
        assert out.visible[b].tolist() == visible
        assert out.predicted[b].tolist() == masked
        tokens = network.encoder.tokens(image[b : b + 1], torch.tensor([visible]))[0]
        expected = slow_decode(network, tokens, visible, masked)
        torch.testing.assert_close(out.prediction[b], expected, atol=1e-4, rtol=1e-4)
        for row, patch in zip(expected, masked, strict=True):
            target = crop(image[b], patch).flatten()
            if normalise_targets:
                target = (target - target.mean()) / (target.var() + 1e-6).sqrt()
            errors += ((row - target) ** 2).tolist()
    assert out.loss.item() == pytest.approx(sum(errors) / len(errors), rel=1e-4)


@pytest.mark.parametrize(("decoder", "pooling"), KINDS)
def test_masked_voxels_change_the_loss_but_never_the_prediction(decoder, pooling):
    network = make(decoder, pooling)
    image, noise = batch()
    before = network(image, noise)
    changed = image.clone()
    crop(changed[0], int(before.predicted[0, 3])).add_(1.0)
    after = network(changed, noise)
    assert torch.equal(after.prediction, before.prediction)
    assert not torch.isclose(after.loss, before.loss)
    crop(changed[0], int(before.visible[0, 1])).add_(1.0)
    assert not torch.allclose(network(changed, noise).prediction[0], before.prediction[0])


@pytest.mark.parametrize("decoder", ["cross", "self"])
def test_gradients_reach_masked_voxels_as_targets_alone(decoder):
    network = make(decoder)
    image, noise = batch()
    out = network(image.requires_grad_(), noise)
    out.loss.backward()
    for b in range(3):
        for row, patch in zip(out.prediction[b].detach(), out.predicted[b].tolist(), strict=True):
            expected = 2 * (crop(image[b], patch).flatten() - row) / out.prediction.numel()
            torch.testing.assert_close(crop(image.grad[b], patch).flatten(), expected)
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


@pytest.mark.parametrize(("ratio", "n_visible"), [(0.75, 4), (0.5, 8), (0.7, 5), (0.999, 1), (0.001, 15)])
def test_mask_ratio_sets_the_number_of_visible_patches(ratio, n_visible):
    image, _ = batch()
    out = make(mask_ratio=ratio)(image)
    assert out.visible.shape == (3, n_visible)
    assert out.predicted.shape == (3, 16 - n_visible)
    both = torch.cat([out.visible, out.predicted], dim=1).sort(dim=1).values
    assert torch.equal(both, torch.arange(16).expand(3, 16))


def test_random_masks_follow_the_seed_and_hide_every_patch_equally_often():
    network, image = make(), torch.zeros(2000, 2, *IMAGE)
    torch.manual_seed(3)
    masked = network(image).predicted
    torch.manual_seed(3)
    assert torch.equal(network(image).predicted, masked)
    frequency = torch.bincount(masked.flatten(), minlength=16) / 2000
    assert (frequency - 0.75).abs().max() < 0.05


@pytest.mark.parametrize("normalise_targets", [False, True])
def test_reconstruction_keeps_what_was_visible_and_pastes_what_was_predicted(normalise_targets):
    network = make(normalise_targets=normalise_targets)
    image, noise = batch()
    out = network(image, noise)
    volume, mask = network.reconstruct(image, noise)
    assert volume.shape == image.shape
    assert mask.shape == (3, 1, *IMAGE)
    for b in range(3):
        for patch in out.visible[b].tolist():
            assert torch.equal(crop(volume[b], patch), crop(image[b], patch))
            assert not crop(mask[b], patch).any()
        for row, patch in zip(out.prediction[b], out.predicted[b].tolist(), strict=True):
            true = crop(image[b], patch)
            expected = row * (true.var() + 1e-6).sqrt() + true.mean() if normalise_targets else row
            torch.testing.assert_close(crop(volume[b], patch).flatten(), expected)
            assert crop(mask[b], patch).all()


def test_training_predicts_part_of_the_masked_patches_as_if_all_were_predicted():
    network = make(prediction_ratio=0.5, mask_ratio=0.75)
    image, noise = batch()
    some = network(image, noise)
    every = network.eval()(image, noise)
    assert some.predicted.shape == (3, 6)
    assert every.predicted.shape == (3, 12)
    assert torch.equal(some.predicted, every.predicted[:, :6])
    torch.testing.assert_close(some.prediction, every.prediction[:, :6])
    targets = [[crop(image[b], p).flatten() for p in some.predicted[b].tolist()] for b in range(3)]
    expected = (some.prediction - torch.stack([torch.stack(rows) for rows in targets])).square().mean()
    torch.testing.assert_close(some.loss, expected)
    assert network.train().reconstruct(image, noise).mask.float().mean() == 0.75


def test_every_masked_patch_is_predicted_equally_often():
    network = make(prediction_ratio=0.25, mask_ratio=0.5)
    torch.manual_seed(3)
    predicted = network(torch.zeros(2000, 2, *IMAGE)).predicted
    assert predicted.shape == (2000, 2)
    assert (torch.bincount(predicted.flatten(), minlength=16) / 2000 - 0.125).abs().max() < 0.04


@pytest.mark.parametrize("decoder", ["cross", "self"])
def test_checkpointing_changes_neither_loss_nor_gradients(decoder):
    image, noise = batch()
    results = []
    for checkpointing in (False, True):
        network = make(decoder)
        network.encoder.checkpointing = checkpointing
        loss = network(image, noise).loss
        loss.backward()
        results.append((loss, [parameter.grad for parameter in network.parameters()]))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("decoder", ["cross", "self"])
def test_learns_to_continue_a_pattern(decoder):
    torch.manual_seed(0)
    encoder = VisionTransformer3D(IMAGE, PATCH, 24, 1, 2)
    network = MaskedAutoEncoder3D(encoder, 24, 1, 2, mask_ratio=0.5, decoder=decoder)
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    losses = []
    for _ in range(100):  # every volume is one grey level: visible patches tell the masked ones
        image = torch.rand(32, 1, 1, 1, 1).expand(32, 1, *IMAGE)
        optimizer.zero_grad()
        loss = network(image).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) / 10 < 0.25 / 12  # a quarter of the levels' variance, 1/12


@pytest.mark.parametrize(("decoder", "pooling"), KINDS)
def test_bf16_autocast_trains_with_a_float32_loss(decoder, pooling):
    network = make(decoder, pooling)
    image, noise = batch()
    with torch.autocast("cpu", torch.bfloat16):
        out = network(image, noise)
    assert out.loss.dtype == torch.float32
    torch.testing.assert_close(out.loss, network(image, noise).loss, atol=0.0, rtol=0.05)
    out.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize("decoder", ["cross", "self"])
def test_compiles_to_one_graph(decoder):
    network = make(decoder, "class")
    image, noise = batch()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(image, noise).loss, network(image, noise).loss)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mask_ratio": 1.0}, "mask_ratio is 1.0"),
        ({"mask_ratio": 0.0}, "mask_ratio is 0.0"),
        ({"decoder": "none"}, "decoder is 'none'"),
        ({"decoder_depth": 0}, "decoder_depth is 0"),
        ({"prediction_ratio": 0.0}, "prediction_ratio is 0.0"),
        ({"prediction_ratio": 0.5, "decoder": "self"}, "choose decoder cross"),
        ({"decoder_heads": 5}, "5 attention heads do not divide a width of 12"),
        ({"encoder": VisionTransformer3D((4, 4, 4), (4, 4, 4), 12, 1, 2)}, "a single patch"),
    ],
)
def test_bad_options_are_told_in_one_line(options, words):
    encoder = VisionTransformer3D(IMAGE, PATCH, 12, 1, 2)
    defaults = {"encoder": encoder, "decoder_width": 12, "decoder_heads": 2}
    with pytest.raises(InputError) as error:
        MaskedAutoEncoder3D(**{**defaults, **options})
    assert words in str(error.value)
    assert "\n" not in str(error.value)
