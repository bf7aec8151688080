"""Time, utilisation and memory of training on one GPU, what data from the store add, and what compiling costs first.

    .venv/bin/python benchmarks/gpu.py [--parts mae data stages cold] [--rounds 7] [--steps 10]
    .venv/bin/python benchmarks/gpu.py --device cpu --small    # tries the script out, at the demo's sizes

mae: a masked pre-training step of the paper profile (ViT-B on volumes of 96 x 160 x 160) in bf16 on a batch that lies
on the device: eager, compiled, and compiled with gradient checkpointing, at several batch sizes. Milliseconds,
samples/s, TFLOP/s, model FLOPs utilisation (MFU) against the data sheet's dense peak, and memory.
data: the compiled step on volumes from a store that the script writes, read by MRIDataModule's workers into pinned
memory and copied without blocking, against the same step on one batch that stays on the device; and the same by
Lightning.
stages: a step of the teacher (R(2+1)D-18 on clips of 32 x 112 x 112) and of the student (ViT-B on whole volumes, with
distillation), as in mae, and the kernels that take most of the time.
cold: the first step of each stage, eager, compiled, and compiled with the kernels that an earlier run has left.

Both sides of a table run in turns, in shuffled rounds; cold gives each run a process of its own, and makes at most
three rounds. Losses and gradients of eager and compiled steps are compared first. It needs PyTorch, Lightning,
torchmetrics, pandas and this package; from a checkout that is not installed: PYTHONPATH=. python3 benchmarks/gpu.py
"""

import argparse
import gc
import os
import tempfile
from pathlib import Path

import torch
from timing import machine, options

PARTS = ("mae", "data", "stages", "cold")
COLD_ROUNDS = 3  # each takes minutes


def main() -> None:
    """Prints the tables of the parts that are asked for."""
    parser = options(__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), help="where (default: cuda where there is one)")
    parser.add_argument("--small", action="store_true", help="the demo's sizes and small batches")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: all)")
    parser.add_argument("--steps", type=int, default=10, help="training steps a round (default: 10)")
    parser.add_argument("--batches", type=int, nargs="+", help="batch sizes of mae (default: 32 64 128)")
    parser.add_argument(
        "--mode", choices=("default", "reduce-overhead", "max-autotune"), default="default", help="torch.compile's mode"
    )
    parser.add_argument("--volumes", type=int, help="volumes of the store (default: 1024, 5 GB)")
    parser.add_argument("--workers", type=int, help="processes that load volumes (default: the profile's)")
    arguments = parser.parse_args()
    if arguments.device != "cpu" and not torch.cuda.is_available():
        print(__doc__)
        print("No CUDA device is at hand, so nothing was measured.")
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(folder) / "kernels")  # else they would stay
        measure(arguments, Path(folder))


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Measures the parts that are asked for, and keeps files in a folder."""
    import gpu_cold
    import gpu_data
    import gpu_steps
    from gpu_training import CLIP, Bench

    from data_modules.errors import InputError

    device = torch.device(arguments.device or "cuda")
    cuda, small = device.type == "cuda", arguments.small
    bench = Bench("demo" if small else "paper", device, "bf16-mixed" if cuda else "32-true", arguments.mode)
    profile = bench.profile
    mae_sizes = arguments.batches or ([8, 16] if small else [32, 64, 128])
    volumes = arguments.volumes or (80 if small else 1024)
    workers = profile.workers if arguments.workers is None else arguments.workers
    sizes = {name: 8 if small else getattr(profile, f"{name}_batch_size") for name in ("mae", "teacher", "student")}
    shapes = {"teacher": f"clips of {list(CLIP[bench.name])}", "student": f"volumes of {profile.volume_size}"}
    steps, rounds = arguments.steps, arguments.rounds
    if volumes < gpu_data.HELD_OUT + sizes["mae"]:
        raise SystemExit(f"error: --volumes {volumes}: give at least {gpu_data.HELD_OUT + sizes['mae']}, for a batch")
    name = torch.cuda.get_device_name(device) if cuda else "CPU only"
    print(f"{name}; {machine('torch', 'pytorch-lightning')}")
    print(f"Profile {bench.name}, {bench.precision}, torch.compile's mode {bench.mode}.")
    try:
        if "mae" in arguments.parts:
            print(f"\n### Pre-training, volumes of {profile.volume_size}\n")
            print(gpu_steps.compare(bench, "mae", mae_sizes, steps, rounds))
        if "data" in arguments.parts:
            release(device)
            print("\n### Pre-training on volumes from the store\n")
            print(gpu_data.compare(bench, folder / "cohort", sizes["mae"], volumes, workers, rounds))
        for stage, shape in shapes.items() if "stages" in arguments.parts else ():
            release(device)
            print(f"\n### {stage.capitalize()}, {shape}\n")
            print(gpu_steps.compare(bench, stage, [sizes[stage]], steps, rounds))
            print(f"\n{gpu_steps.costliest(bench, stage, sizes[stage], steps)}")
        if "cold" in arguments.parts:
            release(device)
            print("\n### The first step\n")
            print(gpu_cold.compare(bench, folder, sizes, steps, min(rounds, COLD_ROUNDS)))
    except InputError as error:
        raise SystemExit(f"error: {error}") from error


def release(device: torch.device) -> None:
    """Gives back the memory that the part before held, which the next one, or its processes, may need."""
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
