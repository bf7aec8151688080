"""What the GPU benchmark times is a training step as `poddistill fit` takes it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from poddistill.lightning_cli import build
from poddistill.training.optimisation import AdamWCosine

ROOT = Path(__file__).parents[2]


@pytest.fixture
def gpu_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import gpu_steps

    yield gpu_steps
    for name in ("gpu_steps", "gpu_training", "timing"):
        del sys.modules[name]


@pytest.mark.parametrize("stage", ["mae", "teacher", "student"])
@pytest.mark.parametrize("profile", ["demo", "paper"])
def test_networks_and_groups_are_those_of_the_configuration(
    gpu_steps: ModuleType, stage: str, profile: str, tiny_cohort: Path, tmp_path: Path
) -> None:
    files = [f"--config={ROOT / 'experiments/pod' / name}.yaml" for name in (profile, stage)]
    further = ["--trainer.accelerator=cpu", "--trainer.precision=32-true", "--run", str(tmp_path)]
    expected = build([*files, "--cohort", str(tiny_cohort), *further]).model
    module = gpu_steps.Bench(profile, torch.device("cpu"), "32-true", "default").stage(stage)
    shapes = [{name: value.shape for name, value in m.state_dict().items()} for m in (module, expected)]
    assert shapes[0] == shapes[1]
    groups = [[g["name"] for g in m.optimisation.parameter_groups(m)] for m in (module, expected)]
    assert groups[0] == groups[1]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_steps_are_lightnings(gpu_steps: ModuleType, precision: str) -> None:
    bench = gpu_steps.Bench("demo", torch.device("cpu"), precision, "default")
    batch, training, module = bench.batch("mae", 2), gpu_steps.Training(bench, "mae"), bench.stage("mae")
    torch.manual_seed(1)
    for _ in range(3):
        training.step(batch)
    module.optimisation = lambda m, *_: AdamWCosine(lr=1e-4, warmup_epochs=0)(m, 10_000, 1)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        precision=precision,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    torch.manual_seed(1)
    loader = DataLoader([batch] * 3, batch_size=None, generator=torch.Generator())  # draws no seed from the masks'
    trainer.fit(module, loader)
    torch.testing.assert_close(training.module.state_dict(), module.state_dict(), rtol=1e-5, atol=1e-7)


def test_unequal_work_is_refused(gpu_steps: ModuleType) -> None:
    eager, tolerance = [1.0, 2.0, 0.9, 1.8], (0.01, 0.05)
    gpu_steps.check(eager, [1.009, 1.92, 0.892, 1.88], "eager and compiled", tolerance)
    for other in ([1.0, 2.0, 0.92, 1.8], [1.0, 2.2, 0.9, 1.8], [1.0, 2.0, 0.9, float("nan")]):
        with pytest.raises(SystemExit, match="compiled: not the same work"):
            gpu_steps.check(eager, other, "eager and compiled", tolerance)
