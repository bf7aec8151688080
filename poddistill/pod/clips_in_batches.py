"""Whether a stage's training batches hold clips beside the volumes, as it needs or cannot use."""

from typing import Any

from data_modules.errors import InputError
from data_modules.tvus import TVUSDataModule
from data_modules.unpaired import UnpairedDataModule


def batched_clips(data: Any) -> TVUSDataModule:
    """Returns the ultrasound of which every training batch of a data module holds clips.

    Raises:
        InputError: Batches hold none.
    """
    if not isinstance(data, UnpairedDataModule) or data.tvus is None or not data.clips_in_batches:
        raise InputError(
            "data.clips_in_batches is 0, but this stage learns from clips in the same step: give an "
            "UnpairedDataModule with tvus and clips_in_batches of at least 1"
        )
    return data.tvus


def refuse_clips(data: Any) -> None:
    """Makes sure that training batches hold volumes alone.

    Raises:
        InputError: They hold clips, too.
    """
    if isinstance(data, UnpairedDataModule) and data.clips_in_batches:
        raise InputError(
            f"data.clips_in_batches is {data.clips_in_batches}, but this stage learns from volumes alone: set it to 0, "
            "or train joint-mae or joint-student"
        )
