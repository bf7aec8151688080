"""Counter-based random streams: any patient can be drawn alone, in any order, on any worker."""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a random stream is for; one stream never influences another."""

    LABELS = 0
    ANATOMY = 1
    COVARIATES = 2
    MRI = 3
    TVUS = 4
    SITE = 5
    HOSPITAL = 6


def generator(seed: int, index: int, stream: Stream) -> np.random.Generator:
    """Random generator of one patient (or scanner, or role) for one purpose.

    Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) maps (key, counter) to random bits.
    The seed is the key; stream and index are the upper words of the counter, so that two streams can only meet after
    2**128 draws.

    Args:
        seed: Seed of the cohort, >= 0.
        index: Patient index, >= 0.
        stream: Purpose of the numbers.

    Returns:
        A generator that depends on these three numbers alone.
    """
    counter = np.array([0, 0, int(stream), index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=seed, counter=counter))
