from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn

from data_modules.errors import InputError
from poddistill.nets.vision_transformer import VisionTransformer3D
from poddistill.training.checkpoints import ENCODERS, check_fit, load_encoder

SIZES: dict[str, Any] = {"image_size": [8, 16, 16], "patch_size": [4, 4, 4], "width": 24, "depth": 1, "heads": 2}


@pytest.mark.parametrize(
    ("modality", "name"),
    [("mri", "network"), ("mri", "mri"), ("tvus", "tvus")],  # of the stages mae and joint-mae
)
@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"heads": 4}, "heads is 2 in the file and 4 in the configuration"),
        ({"patch_size": [2, 4, 8]}, r"patch_size is \(4, 4, 4\) in the file and \(2, 4, 8\) in the configuration"),
    ],
)
def test_an_encoder_whose_weights_have_the_same_shapes_but_another_meaning_is_refused(
    modality: Literal["mri", "tvus"], name: str, other: dict[str, Any], message: str, tmp_path: Path
) -> None:
    trained = VisionTransformer3D(**SIZES)
    state = {f"{ENCODERS[modality][0]}{key}": value for key, value in trained.state_dict().items()}
    options = {name: {"init_args": {"encoder": {"init_args": SIZES}}}}
    torch.save({"state_dict": state, "hyper_parameters": options}, tmp_path / "new.ckpt")
    torch.save({"state_dict": state}, tmp_path / "old.ckpt")
    configured = VisionTransformer3D(**SIZES | other)
    with pytest.raises(InputError, match=message):
        load_encoder(configured, tmp_path / "new.ckpt", modality)
    load_encoder(configured, tmp_path / "old.ckpt", modality)  # nothing to compare with
    same = VisionTransformer3D(**SIZES | {"image_size": [16, 16, 16]})
    load_encoder(same, tmp_path / "new.ckpt", modality)
    assert torch.equal(same.patch_embedding.weight, trained.patch_embedding.weight)


class Remembering(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.memory = torch.zeros(n)

    def get_extra_state(self) -> torch.Tensor:
        return self.memory

    def set_extra_state(self, state: torch.Tensor) -> None:
        self.memory = state


@pytest.mark.parametrize("nested", [False, True])
def test_further_state_may_have_another_shape_but_not_be_missing(nested: bool) -> None:
    before, after = (nn.Sequential(Remembering(n)) if nested else Remembering(n) for n in (0, 7))
    check_fit(before, after.state_dict(), "last.ckpt")
    (name,) = before.state_dict()
    with pytest.raises(InputError, match=rf"^last\.ckpt: .*: {name} is absent in the file"):
        check_fit(before, {}, "last.ckpt")
    with pytest.raises(InputError, match=r"weight is \(3, 2\) in the file and \(3, 4\) in the configuration"):
        check_fit(nn.Linear(4, 3), nn.Linear(2, 3).state_dict(), "last.ckpt")
