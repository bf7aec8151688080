"""When the frames of a clip were taken, and which of them are kept."""

import numpy as np

DEFAULT_FRAME_TIME = 50.0  # ms, where nothing credible is stated
# ms between frames. Scanners take about 5 to 100 frames a second, in a narrow sector up to some hundreds, and what has
# fewer than 2 shows no tissue slide. Seconds (0.0333) or microseconds (33333) in place of ms lie outside, and so do the
# clocks that containers give where they have no rate.
CREDIBLE = (2.0, 500.0)
DISTRUSTED = "a time between frames outside {:g} to {:g} ms is stated, which no ultrasound has: it is not used".format(
    *CREDIBLE
)


def is_credible(frame_time: float) -> bool:
    """Tells whether an ultrasound machine may take frames so many ms apart."""
    return CREDIBLE[0] <= frame_time <= CREDIBLE[1]


def sound_times(stamps: np.ndarray, frame_time: float) -> tuple[np.ndarray, str, bool]:
    """Returns the times of a clip's frames and where they come from.

    Args:
        stamps: (N,) ms as the file has them; nan where it has none.
        frame_time: Between two frames as stated, ms; 0 where unknown.

    Returns:
        Times (N,) in ms, ascending; ``"time stamps"``, ``"stated frame rate"`` where stamps are missing, do not ascend
        or are not `CREDIBLE` in the median, or ``"assumed"`` (``DEFAULT_FRAME_TIME``) where no credible rate is stated
        either; and whether something was passed over because it is not credible.
    """
    count, steps = np.arange(len(stamps)), np.diff(stamps)
    ascend = bool(np.isfinite(stamps).all() and (steps > 0).all())
    if ascend and (not len(steps) or is_credible(float(np.median(steps)))):
        return stamps, "time stamps", False
    if is_credible(frame_time):
        return count * frame_time, "stated frame rate", ascend
    return count * DEFAULT_FRAME_TIME, "assumed", ascend or frame_time > 0


def choose_frames(times: np.ndarray, n: int, frame_rate: float = 0.0) -> tuple[np.ndarray, bool]:
    """Chooses the frames nearest in time to n moments.

    With a frame rate the moments are 1 / rate apart and lie in the middle of the clip. A shorter clip runs to and fro
    between its ends, as the motion does that it shows; it must not be shorter than 1 / rate, or the moments would leap
    over its ends.

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
