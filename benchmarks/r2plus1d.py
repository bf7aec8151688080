"""Time of a training step of R(2+1)D-18 on clips of 16 x 112 x 112: poddistill's against the plain one.

    .venv/bin/python benchmarks/r2plus1d.py [--rounds 7] [--batch 4]

The plain side follows torchvision's published block structure in plain PyTorch (`benchmarks/peers.py`), with equal
weights, optimiser and clips. Logits and gradients are compared in double precision before any clock starts, and the
float32 and bfloat16 logits, in which each training step is timed, with those. FLOPs are the model's, counted in a step.
"""

import statistics
import time
from functools import partial

import torch
from peers import PlainR2Plus1D
from timing import in_turns, machine, options, ratio, table
from torch import Tensor, nn

from poddistill.nets.r2plus1d import R2Plus1D
from poddistill.training.utilisation import ModelFLOPs, measured_peak

SHAPE = (16, 112, 112)
FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16
SIDES = {
    "plain": (PlainR2Plus1D, FLOAT32),
    "plain, bf16": (PlainR2Plus1D, BFLOAT16),
    "poddistill": (R2Plus1D, FLOAT32),
    "poddistill, bf16": (R2Plus1D, BFLOAT16),
}


class Training:
    """A network in training; calling it takes steps and returns the seconds of one.

    Args:
        network: What is trained.
        dtype: bfloat16 for autocast.
        clips: (B, 1, T, H, W).
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype, clips: Tensor) -> None:
        self.network, self.dtype, self.clips = network.train(), dtype, clips
        self.labels = torch.arange(len(clips)).remainder(2).float()
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)

    def __call__(self, steps: int) -> float:
        """Takes steps."""
        start = time.perf_counter()
        for _ in range(steps):
            self.optimizer.zero_grad(set_to_none=True)
            self.loss().backward()
            self.optimizer.step()
        return (time.perf_counter() - start) / steps

    def loss(self) -> Tensor:
        """Returns the loss of the batch."""
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != FLOAT32):
            logits = self.network(self.clips)
        return nn.functional.binary_cross_entropy_with_logits(logits.float(), self.labels)


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
    trainings = {name: Training(network(), dtype, clips) for name, (network, dtype) in SIDES.items()}
    with ModelFLOPs() as counter:
        trainings["plain"].loss().backward()
    flops = counter.get_total_flops()
    times = in_turns(
        {name: partial(training, arguments.steps) for name, training in trainings.items()}, arguments.rounds
    )
    rows = []
    for name, (_, dtype) in SIDES.items():
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


if __name__ == "__main__":
    main()
