"""Compiled training against eager training, on a CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from data_modules.errors import InputError
from poddistill.nets.masked_autoencoder import MaskedAutoEncoder3D
from poddistill.nets.vision_transformer import VisionTransformer3D
from poddistill.training.compilation import COLD_STEPS, WARM_STEPS, Compilation, compile_networks
from poddistill.training.utilisation import Utilisation


class Stage(pl.LightningModule):
    """As the stages are: networks are children, and the random masks are drawn inside."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = MaskedAutoEncoder3D(VisionTransformer3D((8, 8, 8), (4, 4, 4), 12, 1, 2), 12, 1, 2)
        self.label_loss = nn.MSELoss()
        self.losses: list[float] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = self.network(batch).loss
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def fit(
    mode: str | None,
    folder: Path,
    checkpoint: Path | None = None,
    epochs: int = 1,
    stage_class: type[Stage] = Stage,
    **options: object,
) -> Stage:
    stage = stage_class()
    volumes = torch.rand(24, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        callbacks=[Compilation(mode), Utilisation(1.0)],  # type: ignore[arg-type]
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )
    torch.manual_seed(1)
    trainer.fit(stage, DataLoader(volumes, batch_size=2), ckpt_path=checkpoint)  # type: ignore[arg-type]
    trainer.save_checkpoint(folder / "last.ckpt")
    return stage


def test_a_compiled_run_is_the_eager_one_and_their_checkpoints_are_exchanged(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    eager = fit(None, tmp_path / "eager")
    assert "compile" not in capsys.readouterr().out
    compiled = fit("default", tmp_path / "compiled")
    assert torch._dynamo.utils.counters["frames"]["ok"]
    assert f"compile          default: the first {COLD_STEPS} steps took" in capsys.readouterr().out
    assert len(eager.losses) > COLD_STEPS + WARM_STEPS
    assert compiled.losses == pytest.approx(eager.losses, rel=1e-4), "the same masks must be drawn"
    states = [torch.load(tmp_path / name / "last.ckpt")["state_dict"] for name in ("eager", "compiled")]
    assert states[0].keys() == states[1].keys()
    ends = [
        fit(mode, tmp_path / f"from-{start}", tmp_path / start / "last.ckpt", epochs=2).losses[-1]
        for mode, start in (("default", "eager"), (None, "compiled"))
    ]
    assert ends[0] == pytest.approx(ends[1], rel=1e-3)


def test_validation_and_test_are_not_compiled(tmp_path: Path) -> None:
    """Their last batch is another size; training has one alone."""

    class Validated(Stage):
        def validation_step(self, batch: Tensor, batch_idx: int) -> None:
            self.network(batch)

        def val_dataloader(self) -> DataLoader:
            return DataLoader(torch.rand(7, 1, 8, 8, 8), batch_size=5)

        test_step, test_dataloader = validation_step, val_dataloader

    graphs = []
    for stage_class in (Stage, Validated):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        stage = fit("default", tmp_path / stage_class.__name__, epochs=2, stage_class=stage_class)
        if stage_class is Validated:
            stage.trainer.test(stage, verbose=False)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[1] > 0


def test_a_transfer_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has weights, as a network has, but handles a few numbers a batch."""
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module, **_: compiled.append(module))
    stage = Stage()
    stage.transfer = nn.Linear(2, 1)
    compile_networks(stage, "default", torch.device("cpu"))
    assert compiled == [stage.network]


def test_a_missing_compiler_is_told_in_one_line(tmp_path: Path) -> None:
    script = "from test_compilation import *\n"
    script += "try:\n    fit('default', Path('.'))\nexcept InputError as error:\n    print(error)"
    environment = {key: value for key, value in os.environ.items() if key != "CXX"}
    environment |= {"PATH": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    (line,) = result.stdout.splitlines()
    assert line.startswith("compile is default, but torch.compile does not work here")
    assert line.endswith("install a C++ compiler (such as the package g++), or set compile to null")


def test_cuda_graphs_and_accumulated_gradients_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = pl.Trainer(accelerator="cpu", accumulate_grad_batches=2, logger=False, enable_checkpointing=False)
    monkeypatch.setattr(type(trainer.strategy), "root_device", torch.device("cuda"))
    with pytest.raises(InputError, match=r"the gradients of 2 batches: set compile to default, or accumulate_grad"):
        Compilation("reduce-overhead").setup(trainer, Stage(), "fit")
