"""Time of a pre-training step on volumes from the store, against a batch that already lies on the device."""

import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytorch_lightning as pl
from gpu_training import Batch, Bench, Training
from timing import in_turns, ratio, table

from data_modules.augmentation import VolumeAugmentation
from data_modules.mri import MRIDataModule
from data_modules.store import write_array
from poddistill.training.compilation import Compilation
from poddistill.training.utilisation import Utilisation

FOLDS = 4
LABELLED = 8 * FOLDS
HELD_OUT = LABELLED // FOLDS * 2  # a fold for validation and one for the test


def write_store(cohort: Path, shape: tuple[int, ...], volumes: int) -> None:
    """Writes a cohort of random volumes, float16 as `poddistill ingest` stores them, most of them unlabelled."""
    rng = np.random.default_rng(0)
    noise = rng.random((*shape[:-1], shape[-1] + volumes), dtype=np.float32).astype(np.float16)
    names = [f"case{i:05d}" for i in range(volumes)]
    for i, name in enumerate(names):  # each another part of the noise, which takes less time than drawing it
        write_array(cohort / f"mri/{name}.npy", noise[..., i : i + shape[-1]], {})
    manifest = pd.DataFrame({"case_id": names, "patient_id": names, "path": [f"mri/{name}.npy" for name in names]})
    manifest["label"] = [i // FOLDS % 2 if i < LABELLED else None for i in range(volumes)]
    manifest["fold"] = [i % FOLDS if i < LABELLED else None for i in range(volumes)]
    manifest.astype({"label": "Int64", "fold": "Int64"}).to_csv(cohort / "mri.csv", index=False)
    os.sync()  # else the disk is still busy with it while steps are timed


def data_module(cohort: Path, batch_size: int, workers: int) -> MRIDataModule:
    """Returns the data of mae.yaml."""
    augmentation = VolumeAugmentation(rotation=0.0, zoom=0.0, gamma=0.0, noise=0.0)
    options = {"include_unlabelled": True, "batch_size": batch_size, "num_workers": workers}
    return MRIDataModule(str(cohort), augmentation=augmentation, **options)


def compare(bench: Bench, cohort: Path, size: int, volumes: int, workers: int, rounds: int) -> str:
    """Times epochs on both, and some through Lightning, and returns a table."""
    write_store(cohort, bench.profile.volume_size, volumes)
    data = data_module(cohort, size, workers)
    data.trainer = SimpleNamespace(training=True, world_size=1, global_rank=0)
    training, loader = Training(bench, "mae").compile(), data.train_dataloader()
    first = next(iter(loader))
    cached, mebibytes = data.transfer_batch_to_device(first, bench.device, 0), first["image"].nbytes / 2**20

    def step(batch: Batch) -> None:
        training.step(data.on_after_batch_transfer(dict(batch), 0))

    def from_device() -> tuple[float, float]:
        bench.synchronise()
        start = time.perf_counter()
        for _ in range(len(loader)):
            step(cached)
        bench.synchronise()
        return (time.perf_counter() - start) / len(loader), 0.0

    def from_store() -> tuple[float, float]:
        bench.synchronise()
        start, wait = time.perf_counter(), 0.0
        for batch in loader:
            wait = wait or time.perf_counter() - start
            step(data.transfer_batch_to_device(batch, bench.device, 0))
        bench.synchronise()
        return (time.perf_counter() - start) / len(loader), wait

    sides: dict[str, Callable[[], tuple[float, float]]] = {"the device": from_device, "the store": from_store}
    results = in_turns(sides, rounds)
    on_device = [seconds for seconds, _ in results["the device"]]
    rows = []
    for name, side in results.items():
        seconds, waits = [result[0] for result in side], [result[1] for result in side]
        after = [total - wait / len(loader) for total, wait in zip(seconds, waits, strict=True)]
        row = [name, f"{1e3 * statistics.median(seconds):.1f}", ratio(seconds, on_device, 3)]
        rows.append([*row, f"{1e3 * statistics.median(waits):.0f}", ratio(after, on_device, 3)])
    lightning = _through_lightning(bench, cohort, size, workers)
    rows.append(
        ["the store, by Lightning", f"{1e3 * lightning:.1f}", ratio([lightning] * rounds, on_device, 3), "", ""]
    )
    columns = ["batch from", "ms a step", "of one on the device (range)", "first batch, ms", "without that (range)"]
    told = f"{len(loader)} steps an epoch, {size} volumes or {mebibytes:.0f} MiB each, {workers} workers"
    return f"{told}.\n\n{table(columns, rows)}"


def _through_lightning(bench: Bench, cohort: Path, size: int, workers: int) -> float:
    """Trains three epochs as `poddistill fit` does and returns the seconds of a step by what its callback logs."""
    data = data_module(cohort, size, workers)
    trainer = pl.Trainer(
        accelerator="gpu" if bench.device.type == "cuda" else "cpu",
        devices=1,
        precision=bench.precision,
        max_epochs=3,
        log_every_n_steps=len(data.train_dataloader()),  # the last time over the whole last epoch
        gradient_clip_val=1.0,
        limit_val_batches=0,
        callbacks=[Compilation(bench.mode), Utilisation()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with contextlib.redirect_stdout(sys.stderr):  # where the callback tells of the compilation
        trainer.fit(bench.stage("mae"), datamodule=data)
    return size / float(trainer.callback_metrics["train/samples_per_s"])
