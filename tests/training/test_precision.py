"""Which precision is chosen on which machine, and that configurations can name it."""

from pathlib import Path

import pytest
import torch

from poddistill.lightning_cli import build
from poddistill.training.precision import fastest_precision

EXPERIMENTS = Path(__file__).parents[2] / "experiments" / "pod"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Pretends a machine: whether it has a GPU, and whether GPU and CPU multiply bfloat16."""

    def pretend(cuda: bool, gpu_bf16: bool, avx512: bool, amx: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: gpu_bf16)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)

    return pretend


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ((False, False, False, False), "32-true"),
        ((False, False, True, False), "bf16-mixed"),
        ((False, False, False, True), "bf16-mixed"),
        ((True, True, False, False), "bf16-mixed"),
        ((True, False, True, True), "32-true"),  # an old GPU is what trains, whatever the CPU can
    ],
)
def test_bfloat16_only_where_it_has_hardware(machine, kinds, expected):
    machine(*kinds)
    assert fastest_precision() == expected


def test_a_configuration_may_name_it(machine, tmp_path, tiny_cohort):
    machine(False, False, True, False)
    stage = ["--config", str(EXPERIMENTS / "demo.yaml"), "--config", str(EXPERIMENTS / "mae.yaml")]
    options = ["--cohort", str(tiny_cohort), "--run", str(tmp_path), "--trainer.logger", "false"]
    cli = build([*stage, *options, "--trainer.accelerator", "cpu", "--profile.precision", "${fastest_precision:}"])
    assert cli.trainer.precision == "bf16-mixed"
