"""What one of several processes does for all."""

from collections.abc import Callable
from typing import Any, TypeVar

import pytorch_lightning as pl

from data_modules.errors import InputError

T = TypeVar("T")


def by_first(trainer: pl.Trainer, work: Callable[[], T]) -> T:
    """Returns to every process what process 0 works out.

    Args:
        trainer: Whose processes they are; each of them has to call this.
        work: Called in process 0 alone; its result is pickled for the others.

    Raises:
        InputError: The work does, in every process: else the others would wait for the first in vain.
    """
    result: T | None = None
    refused: InputError | None = None
    if trainer.is_global_zero:
        try:
            result = work()
        except InputError as error:
            refused = error
    told: tuple[Any, Any] = trainer.strategy.broadcast((result, refused and str(refused)))
    if refused is not None:
        raise refused
    if told[1] is not None:
        raise InputError(told[1])
    return told[0]
