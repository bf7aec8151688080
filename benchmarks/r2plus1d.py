"""Time of a training step of R(2+1)D-18 on clips of 16 x 112 x 112: poddistill's against the plain one.

    .venv/bin/python benchmarks/r2plus1d.py [--rounds 7] [--batch 4]

The plain side follows torchvision's published block structure in plain PyTorch (`benchmarks/peers.py`), with equal
weights, optimiser and clips. Logits and gradients are compared in double precision before any clock starts, and the
float32 and bfloat16 logits, in which each training step is timed, with those. FLOPs are the model's, counted in a step.
"""

import statistics
from functools import partial

import torch
from peers import PlainR2Plus1D
from steps import BFLOAT16, FLOAT32, Training
from timing import in_turns, machine, options, ratio, table
from torch import Tensor, nn

from poddistill.nets.r2plus1d import R2Plus1D
from poddistill.training.utilisation import measured_peak

SHAPE = (16, 112, 112)
SIDES = {
    "plain": (PlainR2Plus1D, FLOAT32),
    "plain, bf16": (PlainR2Plus1D, BFLOAT16),
    "poddistill": (R2Plus1D, FLOAT32),
    "poddistill, bf16": (R2Plus1D, BFLOAT16),
}


def loss_of(logits: Tensor) -> Tensor:
    """Returns the loss of logits (B,) against labels that alternate."""
    labels = torch.arange(len(logits)).remainder(2).float()
    return nn.functional.binary_cross_entropy_with_logits(logits.float(), labels)


def compare_outputs(clips: Tensor) -> dict[str, float]:
    """Returns how far each side's logits, on equal weights, are from the plain network's in double precision.

    Raises:
        SystemExit: In double precision logits or gradients differ.
    """
    torch.manual_seed(0)
    plain, ours = PlainR2Plus1D().double().train(), R2Plus1D().double().train()
    ours.load_state_dict(plain.state_dict())
    expected, found = (network(clips.double()) for network in (plain, ours))
    gradients = [
        torch.autograd.grad(logits.square().mean(), network.parameters())
        for logits, network in ((expected, plain), (found, ours))
    ]
    try:
        torch.testing.assert_close((found, *gradients[1]), (expected, *gradients[0]), rtol=1e-6, atol=1e-9)
    except AssertionError as error:
        raise SystemExit(f"error: the two networks do not compute the same: {error}") from error
    differences = {}
    for name, (kind, dtype) in SIDES.items():
        network = kind().train()
        network.load_state_dict(plain.float().state_dict())
        with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != FLOAT32):
            differences[name] = float((network(clips) - expected).abs().max())
    return differences


def main() -> None:
    """Times all sides in turns and prints the table."""
    parser = options(__doc__)
    parser.add_argument("--steps", type=int, default=1, help="training steps a round (default: 1)")
    parser.add_argument("--batch", type=int, default=4, help="clips a step (default: 4)")
    arguments = parser.parse_args()
    clips = torch.rand(arguments.batch, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    differences = compare_outputs(clips)
    trainings = {name: Training(network(), clips, loss_of, dtype) for name, (network, dtype) in SIDES.items()}
    flops = trainings["plain"].flops()
    times = in_turns(
        {name: partial(training, arguments.steps) for name, training in trainings.items()}, arguments.rounds
    )
    rows, lost = [], []
    for name, (_, dtype) in SIDES.items():
        if not all(weight.isfinite().all() for weight in trainings[name].network.parameters()):
            lost.append(name)
        seconds = statistics.median(times[name])
        rate, peak = flops / seconds / 1e12, measured_peak(torch.device("cpu"), dtype)
        rows.append(
            [
                name,
                f"{1e3 * seconds:.0f}",
                "1" if name == "plain" else ratio(times["plain"], times[name]),
                f"{1e3 * rate:.0f} of {1e3 * peak:.0f}",
                f"{differences[name]:.1g}",
            ]
        )
    print(machine("torch"))
    parameters = sum(parameter.numel() for parameter in trainings["plain"].network.parameters())
    print(f"R(2+1)D-18, {parameters:,} parameters, batch {arguments.batch},")
    print(f"{flops / 1e9:.0f} GFLOP a step, {torch.get_num_threads()} threads\n")
    columns = ["network", "ms a step", "times faster (range)", "GFLOP/s, of the products' own", "logits off by at most"]
    print(table(columns, rows))
    if lost:
        print(f"\nNot a training: the weights have become nan in {', '.join(lost)}.")


if __name__ == "__main__":
    main()
