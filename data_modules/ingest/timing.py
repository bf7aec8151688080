"""When the frames of a clip were taken, and which of them are kept."""

import numpy as np

DEFAULT_FRAME_TIME = 50.0  # ms, where nothing is stated


def sound_times(stamps: np.ndarray, frame_time: float) -> tuple[np.ndarray, str]:
    """Returns the times of a clip's frames and where they come from.

    Args:
        stamps: (N,) ms as the file has them; nan where it has none.
        frame_time: Between two frames as stated, ms; 0 where unknown.

    Returns:
        Times (N,) in ms, ascending; and ``"time stamps"``, ``"stated frame rate"`` where stamps are missing or do not
        ascend, or ``"assumed"`` (``DEFAULT_FRAME_TIME``) where no rate is stated either.
    """
    if np.isfinite(stamps).all() and (np.diff(stamps) > 0).all():
        return stamps, "time stamps"
    count = np.arange(len(stamps))
    return (count * frame_time, "stated frame rate") if frame_time > 0 else (count * DEFAULT_FRAME_TIME, "assumed")


def choose_frames(times: np.ndarray, n: int, frame_rate: float = 0.0) -> tuple[np.ndarray, bool]:
    """Chooses the frames nearest in time to n moments.

    With a frame rate the moments are 1 / rate apart and lie in the middle of the clip. A shorter clip runs to and fro
    between its ends, as the motion does that it shows.

    Args:
        times: (N,) ms, ascending.
        n: How many moments.
        frame_rate: Hz; 0: the moments are spread evenly from the first to the last frame.

    Returns:
        Numbers of the frames (n,), and whether the clip was too short.
    """
    length = float(times[-1] - times[0])
    if frame_rate <= 0 or length == 0:
        return nearest_in_time(times, np.linspace(times[0], times[-1], n)), False
    spare = length - (n - 1) * 1000 / frame_rate
    start = 0.0
    if spare > 0:  # starts on a frame: a clip of this very rate keeps its frames, instead of falling between them
        start = float(times[np.searchsorted(times, times[0] + spare / 2, side="right") - 1] - times[0])
    elapsed = start + np.arange(n) * 1000 / frame_rate
    moments = times[0] + length - np.abs(elapsed % (2 * length) - length)
    too_short = -spare > np.median(np.diff(times)) / 2  # less is the rounding of time stamps
    return nearest_in_time(times, moments), bool(too_short)


def nearest_in_time(times: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Returns the numbers (n,) of the frames at times (N,) nearest to moments (n,), the earlier of two equally near."""
    distance = np.abs(times[None] - moments[:, None]).round(3)  # ms; digits beyond would decide between equals
    return distance.argmin(1)
