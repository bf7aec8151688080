"""The utilisation of the hardware: FLOPs against counts by hand, and a training that is the same with and without."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader

from data_modules.errors import InputError
from poddistill.nets import transformer
from poddistill.nets.masked_autoencoder import MaskedAutoEncoder3D
from poddistill.nets.r2plus1d import Conv2Plus1D, R2Plus1D
from poddistill.nets.shared import share_blocks
from poddistill.nets.vision_transformer import VisionTransformer3D
from poddistill.training.utilisation import UNTIMED_STEPS, ModelFLOPs, Utilisation, known_peak, measured_peak

BATCH = 2
IMAGE, PATCH = (8, 16, 16), (4, 4, 4)
TALL = (16, 16, 16)
N, VOXELS = 32, 64  # patches of a volume, voxels of a patch
WIDTH, DEPTH, DECODER_WIDTH, DECODER_DEPTH = 24, 2, 12, 3


def auto_encoder(checkpointing: bool = False) -> MaskedAutoEncoder3D:
    torch.manual_seed(0)
    encoder = VisionTransformer3D(IMAGE, PATCH, WIDTH, DEPTH, 2, checkpointing=checkpointing)
    return MaskedAutoEncoder3D(encoder, DECODER_WIDTH, DECODER_DEPTH, 2, mask_ratio=0.75)


def counted(network: nn.Module, size: tuple[int, ...] = IMAGE) -> int:
    with ModelFLOPs() as counter:
        loss = network(torch.rand(BATCH, 1, *size))
        (loss.loss if isinstance(network, MaskedAutoEncoder3D) else loss.sum()).backward()
    return counter.get_total_flops()


def test_a_step_of_the_auto_encoder_is_counted_as_by_hand() -> None:
    visible, masked, w, d = N // 4, 3 * N // 4, WIDTH, DECODER_WIDTH
    embedding = visible * VOXELS * w
    # A block: queries, keys and values, scores and their sums, the projection, and a perceptron four times as wide.
    block = 3 * visible * w**2 + 2 * visible**2 * w + visible * w**2 + 2 * visible * 4 * w**2
    cross = masked * d**2 + 2 * visible * d**2 + 2 * masked * visible * d + masked * d**2 + 2 * masked * 4 * d**2
    rest = DEPTH * block + visible * w * d + DECODER_DEPTH * cross + masked * d * VOXELS
    # Forward once and back twice, for inputs and for weights; nobody asks for the gradient of the volume.
    assert counted(auto_encoder()) == 2 * BATCH * (2 * embedding + 3 * rest)


@pytest.mark.parametrize("change", ["checkpointing", "kernel"])
def test_the_count_does_not_depend_on_how_the_model_is_computed(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = counted(auto_encoder())
    if change == "kernel":
        monkeypatch.setattr(transformer, "SHORT_CONTEXT", 0)  # PyTorch's fused attention instead of plain products
    assert counted(auto_encoder(checkpointing=change == "checkpointing")) == plain


def test_a_convolution_in_space_and_time_is_counted_as_by_hand() -> None:
    layer = Conv2Plus1D(3, 5, middle=7, stride=2)
    clip = torch.rand(BATCH, 3, 8, 16, 16, requires_grad=True)
    with ModelFLOPs() as counter:
        layer(clip).sum().backward()
    space = 8 * 8 * 8 * (3 * 7 * 3 * 3)  # voxels that come out, times the weights that each of them meets
    time = 4 * 8 * 8 * (7 * 5 * 3)
    assert counter.get_total_flops() == 3 * 2 * BATCH * (space + time)


class Stage(pl.LightningModule):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        output = self.network(batch)
        return output.loss if isinstance(self.network, MaskedAutoEncoder3D) else output.square().mean()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.network(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def fit(network: nn.Module, folder: Path, callbacks: list[pl.Callback], **options: object) -> pd.DataFrame:
    volumes = torch.rand(24, 1, *IMAGE, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(volumes, batch_size=BATCH)  # type: ignore[arg-type]
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=CSVLogger(folder, name="", version=""),
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **{"log_every_n_steps": 4, **options},
    )
    torch.manual_seed(1)
    trainer.fit(Stage(network), loader, loader)
    file = folder / "metrics.csv"
    return pd.read_csv(file) if file.is_file() else pd.DataFrame()


@pytest.mark.parametrize("make", [auto_encoder, lambda: nn.Sequential(R2Plus1D(4), nn.Dropout(0.5))], ids=["mae", "r2"])
def test_a_training_is_the_same_with_and_without(make, tmp_path: Path) -> None:
    states = []
    for name, callbacks in (("with", [Utilisation()]), ("without", [])):
        torch.manual_seed(0)
        network = make()
        fit(network, tmp_path / name, callbacks)
        states.append({key: value.clone() for key, value in network.state_dict().items()})
        states[-1]["the generator's state"] = torch.get_rng_state()
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), f"{key} differs"


@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_is_logged_belongs_together(accumulate: int, tmp_path: Path) -> None:
    network = auto_encoder()
    metrics = fit(network, tmp_path, [Utilisation(peak_tflops=0.5)], accumulate_grad_batches=accumulate)
    first = 8 if accumulate == 1 else 4  # the first steps are not timed
    assert list(metrics["step"] + 1) == list(range(first, 24 // accumulate + 1, 4))
    pd.testing.assert_series_equal(metrics["train/tflops"], 0.5 * metrics["train/mfu"], check_names=False, rtol=1e-4)
    per_sample = counted(network) / BATCH / 1e12
    expected = per_sample * metrics["train/samples_per_s"]
    pd.testing.assert_series_equal(metrics["train/tflops"], expected, check_names=False, rtol=1e-4)


class TwoKinds(pl.LightningModule):
    """One auto-encoder for small volumes and one for tall ones, with blocks in common."""

    def __init__(self) -> None:
        super().__init__()
        encoder = VisionTransformer3D(TALL, PATCH, WIDTH, DEPTH, 2)
        self.networks = nn.ModuleList([auto_encoder(), MaskedAutoEncoder3D(encoder, DECODER_WIDTH, 1, 2)])
        share_blocks(*(network.encoder for network in self.networks))

    def training_step(self, batch: dict[str, dict[str, Tensor]], batch_idx: int) -> Tensor:
        parts = zip(self.networks, batch.values(), strict=True)
        return torch.stack([network(part["image"]).loss for network, part in parts]).sum()

    configure_optimizers = Stage.configure_optimizers


@pytest.mark.parametrize("drop_last", [True, False])
def test_batches_of_two_kinds_are_counted_whole_or_not_at_all(drop_last: bool, tmp_path: Path) -> None:
    def loader(size: tuple[int, ...], n: int, batch_size: int) -> DataLoader:
        cases = [{"image": torch.rand(1, *size)} for _ in range(n)]
        return DataLoader(cases, batch_size=batch_size, drop_last=drop_last)  # type: ignore[arg-type]

    both = CombinedLoader({"small": loader(IMAGE, 25, 2), "tall": loader(TALL, 39, 3)}, "min_size")
    module = TwoKinds()
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=CSVLogger(tmp_path, name="", version=""),
        callbacks=[Utilisation(peak_tflops=0.5)],
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, both)
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    each = [counted(network, size) / BATCH for network, size in zip(module.networks, (IMAGE, TALL), strict=True)]
    per_step = (2 * each[0] + 3 * each[1]) / 1e12
    whole = metrics["train/tflops"].notna()
    steps_per_s = metrics["train/samples_per_s"] / 5
    pd.testing.assert_series_equal(
        metrics["train/tflops"][whole], per_step * steps_per_s[whole], check_names=False, rtol=1e-4
    )
    assert (~whole).sum() == (0 if drop_last else 2), "the last batch of an epoch holds one small volume less"


def test_validation_and_waiting_for_data_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only data (1 s a batch) and validation (100 s) move."""
    now = [0.0]
    monkeypatch.setattr("poddistill.training.utilisation.time.perf_counter", lambda: now[0])

    class Clock(pl.Callback):
        def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            now[0] += 100.0

        def on_before_zero_grad(self, *_: object) -> None:
            now[0] += 1.0

    metrics = fit(auto_encoder(), tmp_path, [Utilisation(1.0), Clock()], val_check_interval=0.5, num_sanity_val_steps=1)
    assert len(metrics) == (24 - UNTIMED_STEPS) // 4
    assert metrics["train/samples_per_s"].tolist() == pytest.approx([BATCH] * len(metrics))


TWO_PROCESSES = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from test_utilisation import *
fit(auto_encoder(), Path({run!r}), [Utilisation(1.0)], devices=2, strategy="ddp")
"""


def test_of_two_processes_rates_add_up_and_utilisation_is_the_mean(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES.format(folder=str(Path(__file__).parent), run=str(tmp_path / "run")))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(script)], env=environment, check=True, capture_output=True)
    metrics = pd.read_csv(tmp_path / "run/metrics.csv")
    per_sample = counted(auto_encoder()) / BATCH / 1e12
    expected = per_sample * metrics["train/samples_per_s"] / 2
    pd.testing.assert_series_equal(metrics["train/mfu"], expected, check_names=False, rtol=1e-4)


def test_a_device_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert known_peak("NVIDIA H200", torch.bfloat16) == 989.4
    assert known_peak("NVIDIA H100 80GB HBM3", torch.float16) == 989.4
    assert known_peak("NVIDIA H100 PCIe", torch.bfloat16) == 756.0
    assert known_peak("NVIDIA A100-SXM4-80GB", torch.bfloat16) == 312.0
    assert known_peak("Tesla V100-SXM2-32GB", torch.float16) == 125.0
    assert known_peak("Tesla V100-SXM2-32GB", torch.bfloat16) is None
    assert known_peak("NVIDIA A10", torch.bfloat16) is None, "not an A100"
    assert known_peak("NVIDIA H100 80GB HBM3 MIG 1g.10gb", torch.bfloat16) is None
    assert known_peak("NVIDIA H200", torch.float32) == 66.9
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert known_peak("NVIDIA H200", torch.float32) == 494.7
    assert known_peak("Tesla T4", torch.float32) == 8.1


def test_a_rate_is_measured_without_a_draw_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    assert 0.001 < measured_peak(torch.device("cpu"), torch.float32) < 1000
    assert torch.equal(before, torch.get_rng_state())


def test_a_peak_that_is_none_is_told() -> None:
    with pytest.raises(InputError, match=r"peak_tflops is 0.0: give the device's peak"):
        Utilisation(peak_tflops=0.0)
