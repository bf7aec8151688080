"""Time and memory of a masked pre-training step: poddistill's auto-encoder against MONAI's MaskedAutoEncoderViT.

    .venv/bin/python benchmarks/mae_step.py [--rounds 7] [--batch 8]

The first comparison is of the identical network: MONAI's weights are loaded into poddistill's, and predictions and
loss under the same mask are compared before any clock starts. Then the default decoder (masked tokens attend to visible
ones, not to each other), in float32, in bfloat16 where the processor has products of it, and with half of the masked
patches predicted. All have the same optimiser, data and threads, and take turns.

FLOPs are the model's, counted in a step; the products' own rate is that of one large product in the same type. Memory
is the peak of resident memory in a process of its own, above what it had before the network was made.
"""

import ctypes
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from peers import MonaiMAE
from steps import BFLOAT16, FLOAT32, Training
from timing import in_turns, machine, options, ratio, require, table
from torch import Tensor, nn

from poddistill.nets.masked_autoencoder import MAEOutput, MaskedAutoEncoder3D
from poddistill.nets.vision_transformer import VisionTransformer3D
from poddistill.training.precision import fastest_precision
from poddistill.training.utilisation import measured_peak

SIZES = {"image_size": (64, 96, 96), "patch_size": (8, 8, 8), "width": 384, "depth": 6, "heads": 6}
DECODER = {"decoder_width": 192, "decoder_depth": 4, "decoder_heads": 6, "mask_ratio": 0.75}
FEW = 3  # steps in which memory peaks


class Side(NamedTuple):
    """A network and how it is trained.

    Attributes:
        network: Returns a new network.
        dtype: bfloat16 for autocast.
        matmul: As `torch.set_float32_matmul_precision`.
    """

    network: Callable[[], nn.Module]
    dtype: torch.dtype = FLOAT32
    matmul: str = "highest"


def ours(decoder: str, **options: float) -> nn.Module:
    """Returns poddistill's network; with the self-attention decoder it has a class token, as MONAI's has."""
    encoder = VisionTransformer3D(**SIZES, pooling="class" if decoder == "self" else "mean")
    return MaskedAutoEncoder3D(encoder, decoder=decoder, **{**DECODER, **options})


def monai() -> nn.Module:
    """Returns MONAI's network of the same sizes."""
    return MonaiMAE(**SIZES, **DECODER)


SIDES = {
    "MONAI": Side(monai),
    "MONAI, matmul_precision medium": Side(monai, matmul="medium"),
    "the same network": Side(partial(ours, "self")),
    "the same network, matmul_precision medium": Side(partial(ours, "self"), matmul="medium"),
    "cross-attention": Side(partial(ours, "cross")),
    "cross-attention, bf16": Side(partial(ours, "cross"), BFLOAT16),
    "cross-attention of 3 heads, bf16, predicting half": Side(
        partial(ours, "cross", decoder_heads=3, prediction_ratio=0.5), BFLOAT16
    ),
}


def training(side: Side, batch: int) -> Training:
    """Returns a new network of a side, in training on random volumes."""
    torch.manual_seed(0)
    network = side.network()
    return Training(network, torch.rand(batch, 1, *SIZES["image_size"]), loss_of, side.dtype, side.matmul)


def loss_of(answer: Tensor | MAEOutput) -> Tensor:
    """Returns the loss that a network answers with."""
    return answer if isinstance(answer, Tensor) else answer.loss


@torch.no_grad()
def compare_outputs(batch: int) -> float:
    """Loads MONAI's weights into poddistill's network and returns the greatest difference of their predictions.

    Raises:
        SystemExit: Predictions or losses differ by more than rounding.
    """
    torch.manual_seed(0)
    theirs, mine = monai().eval(), ours("self").eval()
    load_monai(theirs, mine)
    volumes = torch.rand(batch, 1, *SIZES["image_size"])
    prediction, mask = theirs.network(volumes)
    loss = ((prediction - theirs.patchify(volumes)).square().mean(dim=2) * mask).sum() / mask.sum()
    answer = mine(volumes, noise=mask.float())  # visible patches first
    rows = answer.predicted[:, :, None].expand(-1, -1, prediction.shape[2])
    difference = float((prediction.gather(1, rows) - answer.prediction).abs().max())
    if difference > 1e-4 or abs(float(loss - answer.loss)) > 1e-5:
        raise SystemExit(f"error: the same weights predict differently, by {difference:.2g}: they are not one network")
    return difference


def load_monai(theirs: MonaiMAE, mine: MaskedAutoEncoder3D) -> None:
    """Copies every weight of MONAI's network, and its positions, into poddistill's.

    Raises:
        RuntimeError: A weight is left over or of another shape.
    """
    source = theirs.network.state_dict()
    weights = {
        "encoder.patch_embedding.weight": source["patch_embedding.patch_embeddings.weight"].flatten(1),
        "encoder.patch_embedding.bias": source["patch_embedding.patch_embeddings.bias"],
        "encoder.class_token": source["cls_token"].flatten(),
        "mask_token": source["mask_tokens"].flatten(),
    }
    names = {"attn.qkv": "attention.qkv", "attn.out_proj": "attention.projection", "norm1": "norm_attention"}
    names |= {"norm2": "norm_mlp", "mlp.linear1": "mlp.0", "mlp.linear2": "mlp.2"}
    for part, prefix in (("blocks", "encoder."), ("decoder_blocks", "")):
        depth = len(getattr(theirs.network, part)) - 1  # the norm is the last
        for kind in ("weight", "bias"):
            weights[f"{prefix}norm.{kind}"] = source[f"{part}.{depth}.{kind}"]
            for block in range(depth):
                for name, own in names.items():
                    weights[f"{prefix}blocks.{block}.{own}.{kind}"] = source[f"{part}.{block}.{name}.{kind}"]
    for name, own in {"decoder_embed": "embedding", "decoder_pred": "prediction"}.items():
        weights |= {f"{own}.{kind}": source[f"{name}.{kind}"] for kind in ("weight", "bias")}
    mine.load_state_dict(weights)
    mine.encoder.positions.copy_(source["patch_embedding.position_embeddings"][0])
    mine.positions.copy_(source["decoder_pos_embedding"][0])


def peak_memory(name: str, batch: int) -> float:
    """Returns the peak memory of a side's training, in MB, in a process of its own."""
    command = [sys.executable, __file__, "--batch", str(batch), "--memory-of", name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def own_peak_memory(name: str, batch: int) -> float:
    """Returns how far this process's resident memory rises, in MB."""
    # Freed blocks go back to the system, so that resident is what tensors take and not what the allocator keeps.
    libc = ctypes.CDLL("libc.so.6")
    for option in (-3, -1):  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of mallopt(3)
        libc.mallopt(option, 2**16)
    torch.rand(64, 64).mm(torch.rand(64, 64))  # loads the library of products
    before = _resident("VmRSS")
    training(SIDES[name], batch)(FEW)
    return _resident("VmHWM") - before


def _resident(kind: str) -> float:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in status.splitlines() if line.startswith(kind))


def main() -> None:
    """Times all sides in turns and prints the table."""
    parser = options(__doc__)
    parser.add_argument("--steps", type=int, default=1, help="training steps a round (default: 1)")
    parser.add_argument("--batch", type=int, default=8, help="volumes a step (default: 8)")
    parser.add_argument("--memory-of", choices=list(SIDES), help="print the peak memory of one side and stop")
    arguments = parser.parse_args()
    require("einops")  # MONAI's transformer does not work without
    if arguments.memory_of:
        print(own_peak_memory(arguments.memory_of, arguments.batch))
        return
    difference = compare_outputs(2)
    trainings = {name: training(side, arguments.batch) for name, side in SIDES.items()}
    if fastest_precision() == "32-true":
        print("this processor has no products of bfloat16: those lines are slower than float32\n")
    flops = {name: one.flops() for name, one in trainings.items()}
    sides = {name: partial(one, arguments.steps) for name, one in trainings.items()}
    times = in_turns(sides, arguments.rounds)
    memory = {name: peak_memory(name, arguments.batch) for name in SIDES}
    rows = []
    for name, side in SIDES.items():
        seconds, first = statistics.median(times[name]), name == "MONAI"
        torch.set_float32_matmul_precision(side.matmul)
        rate, peak = flops[name] / seconds / 1e12, measured_peak(torch.device("cpu"), side.dtype)
        used = sum(parameter.numel() for parameter in _used(trainings[name].network))
        rows.append(
            [
                name,
                f"{1e3 * seconds:.0f}",
                "1" if first else ratio(times["MONAI"], times[name]),
                f"{memory[name]:.0f}",
                "1" if first else f"{memory[name] / memory['MONAI']:.2f}",
                f"{flops[name] / 1e9:.0f}",
                f"{1e3 * rate:.0f} of {1e3 * peak:.0f} ({rate / peak:.0%})",
                f"{used:,}",
            ]
        )
    columns = ["network", "ms a step", "times faster (range)", "peak MB", "of MONAI's", "GFLOP"]
    print(machine("torch", "monai"))
    print(f"{SIZES}, {DECODER}, batch {arguments.batch}, {torch.get_num_threads()} threads")
    print(f"With equal weights and masks predictions differ by at most {difference:.1g}.\n")
    print(table([*columns, "GFLOP/s, of the products' own", "parameters"], rows))


def _used(network: nn.Module) -> list[nn.Parameter]:
    """Parameters that have a gradient: MONAI's blocks hold norms that nothing uses, and its fixed positions."""
    return [parameter for parameter in network.parameters() if parameter.grad is not None]


if __name__ == "__main__":
    main()
