"""Weights that pass from one stage to the next, checked before any training starts."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from torch import nn

from data_modules.errors import InputError

ENCODERS = {
    "mri": ("network.encoder.", "MAE encoder; give the best.ckpt of the mae stage"),
    "tvus": ("clip_network.encoder.", "MAE encoder of clips; give the best.ckpt of the joint-mae stage"),
}
"""Where a checkpoint of stage 1 holds an encoder, and what to do where it holds none."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Returns a Lightning checkpoint's content, on the CPU.

    Raises:
        InputError: If there is no such file or it cannot be read.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such checkpoint; train the stage that writes it first, or correct the path")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch.load answers a damaged file with almost any exception
        raise InputError(
            f"{path}: not a readable checkpoint ({type(error).__name__}); give a stage's best.ckpt, or train it again"
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise InputError(f"{path}: not a Lightning checkpoint (it has no state_dict); give a stage's best.ckpt")
    return checkpoint


def hashed(patients: Iterable[str]) -> list[str]:
    """Returns a hash of each patient_id, sorted: what a checkpoint holds under ``trained_patients``."""
    return sorted(hashlib.blake2b(patient.encode(), digest_size=8).hexdigest() for patient in patients)


def refuse_trained_on(path: str | Path, manifest: pd.DataFrame) -> set[str]:
    """Refuses to build on a checkpoint that has seen patients who are held out here.

    Args:
        path: A stage's checkpoint.
        manifest: Of the cohort, with the columns patient_id and split.

    Returns:
        Whom it has seen, `hashed`: what is built on it has seen them, too.

    Raises:
        InputError: Images of validation or test patients were trained on, as they are for another fold.
    """
    held_out = set(hashed(manifest.loc[manifest["split"].isin(["val", "test"]), "patient_id"].unique()))
    trained = set(read_checkpoint(path).get("trained_patients", []))
    if seen := held_out & trained:
        raise InputError(
            f"{path}: was trained on {len(seen)} of the {len(held_out)} patients whom this run validates and tests on; "
            "give the checkpoint of the same --fold, or the --fold of this one"
        )
    return trained


def load_encoder(encoder: nn.Module, path: str | Path, modality: Literal["mri", "tvus"] = "mri") -> None:
    """Loads an encoder of a `MAEPretrain` or `SharedMAEPretrain` checkpoint, all of it or nothing.

    Raises:
        InputError: If the checkpoint is of another stage or of another architecture; it names the first difference.
    """
    prefix, missing = ENCODERS[modality]
    checkpoint = read_checkpoint(path)
    weights = {
        key.removeprefix(prefix): value for key, value in checkpoint["state_dict"].items() if key.startswith(prefix)
    }
    if not weights:
        raise InputError(f"{path}: holds no {missing} as model.init_encoder")
    check_fit(encoder, weights, path)
    _check_options(encoder, checkpoint.get("hyper_parameters", {}), path, modality)
    encoder.load_state_dict(weights)


def check_fit(module: nn.Module, weights: dict[str, Any], path: str | Path) -> None:
    """Compares names and shapes of weights with a module's; of further state, such as a count of steps, the names.

    Further state is what `torch.nn.Module.get_extra_state` gives. Where that is a tensor, its shape may be known only
    when training starts.

    Raises:
        InputError: On the first difference.
    """
    own = module.state_dict()
    for key in sorted(own.keys() | weights.keys()):
        here, there = (_shape(key, weights_of[key]) if key in weights_of else "absent" for weights_of in (own, weights))
        if here != there:
            raise _misfit(path, key, there, here)


def _shape(key: str, value: Any) -> tuple[int, ...] | None:
    further = key.rpartition(".")[2] == "_extra_state"
    return tuple(value.shape) if isinstance(value, torch.Tensor) and not further else None


def _check_options(encoder: nn.Module, options: dict[str, Any], path: str | Path, modality: str) -> None:
    """Compares what changes an encoder's function and no shape, where the checkpoint holds the options of its stage."""
    node: Any = options.get(modality, options.get("network"))
    for key in ("init_args", "encoder", "init_args"):
        node = node.get(key) if isinstance(node, dict) else None
    for name in ("heads", "patch_size"):
        here, there = getattr(encoder, name, None), (node or {}).get(name)
        there = tuple(there) if isinstance(there, list) else there
        if None not in (here, there) and here != there:
            raise _misfit(path, name, there, here)


def _misfit(path: str | Path, name: str, there: Any, here: Any) -> InputError:
    return InputError(
        f"{path}: does not fit the configured network: {name} is {there} in the file and {here} in the configuration; "
        "use the sizes that the checkpoint was trained with"
    )
