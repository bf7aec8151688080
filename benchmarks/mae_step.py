"""Time of a masked pre-training step: poddistill's auto-encoder against MONAI's MaskedAutoEncoderViT.

    .venv/bin/python benchmarks/mae_step.py [--rounds 9] [--batch 16]

Both have the same encoder and decoder sizes, mask ratio, loss (mean squared error over masked patches), optimiser and
data. poddistill is timed with the same kind of decoder (self-attention over all tokens) and with its default one
(cross-attention from masked to visible tokens), which does less work. Rounds are interleaved in shuffled order; printed
are medians and how many times faster than MONAI each is.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from monai.networks.nets import MaskedAutoEncoderViT
from timing import in_turns, machine, options, ratio, require, table
from torch import Tensor, nn

from poddistill.nets.masked_autoencoder import MaskedAutoEncoder3D
from poddistill.nets.vision_transformer import VisionTransformer3D

SHAPE, PATCH, MASK_RATIO = (16, 48, 48), (4, 8, 8), 0.75
ENCODER = {"width": 96, "depth": 4, "heads": 4}
DECODER = {"width": 48, "depth": 2, "heads": 4}


def monai_step() -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """Returns MONAI's network and its loss of volumes (B, 1, D, H, W)."""
    network = MaskedAutoEncoderViT(
        in_channels=1,
        img_size=SHAPE,
        patch_size=PATCH,
        hidden_size=ENCODER["width"],
        mlp_dim=4 * ENCODER["width"],
        num_layers=ENCODER["depth"],
        num_heads=ENCODER["heads"],
        masking_ratio=MASK_RATIO,
        decoder_hidden_size=DECODER["width"],
        decoder_mlp_dim=4 * DECODER["width"],
        decoder_num_layers=DECODER["depth"],
        decoder_num_heads=DECODER["heads"],
    )
    patchify = our_network("self").encoder.patchify

    def loss(volumes: Tensor) -> Tensor:
        prediction, mask = network(volumes)
        error = (prediction - patchify(volumes)).square().mean(dim=2)
        return (error * mask).sum() / mask.sum()

    return network, loss


def our_network(decoder: str) -> MaskedAutoEncoder3D:
    """Returns poddistill's network with the same sizes."""
    return MaskedAutoEncoder3D(
        VisionTransformer3D(SHAPE, PATCH, **ENCODER),
        decoder_width=DECODER["width"],
        decoder_depth=DECODER["depth"],
        decoder_heads=DECODER["heads"],
        mask_ratio=MASK_RATIO,
        decoder=decoder,
    )


def our_step(decoder: str) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """Returns poddistill's network and its loss."""
    network = our_network(decoder)
    return network, lambda volumes: network(volumes).loss


def seconds(network: nn.Module, loss: Callable[[Tensor], Tensor], volumes: Tensor, steps: int) -> float:
    """Returns the time of a training step, in seconds."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    start = time.perf_counter()
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        loss(volumes).backward()
        optimizer.step()
    return (time.perf_counter() - start) / steps


def main() -> None:
    """Times all sides in turns and prints the table."""
    parser = options(__doc__, rounds=9)
    parser.add_argument("--steps", type=int, default=5, help="training steps a round")
    parser.add_argument("--batch", type=int, default=16)
    arguments = parser.parse_args()
    require("einops")  # MONAI's transformer does not work without
    torch.manual_seed(0)
    volumes = torch.rand(arguments.batch, 1, *SHAPE)
    sides = {
        "MONAI MaskedAutoEncoderViT": monai_step(),
        "poddistill, self-attention decoder": our_step("self"),
        "poddistill, cross-attention decoder": our_step("cross"),
    }
    run = {name: partial(seconds, network, loss, volumes, arguments.steps) for name, (network, loss) in sides.items()}
    times = in_turns(run, arguments.rounds)
    base = next(iter(times.values()))
    rows = []
    for name, values in times.items():
        median = statistics.median(values)
        parameters = sum(parameter.numel() for parameter in sides[name][0].parameters())
        speed_up = "1" if values is base else ratio(base, values)
        rows.append((name, f"{1e3 * median:.1f}", f"{arguments.batch / median:.0f}", speed_up, f"{parameters:,}"))
    print(machine("torch", "monai"))
    print(f"volumes {SHAPE}, patch {PATCH}, batch {arguments.batch}, {torch.get_num_threads()} threads")
    print(f"encoder {ENCODER}, decoder {DECODER}\n")
    print(table(("network", "ms a step", "volumes/s", "times faster (range)", "parameters"), rows))


if __name__ == "__main__":
    main()
