import numpy as np
import pytest

from data_modules.ingest.timing import choose_frames, nearest_in_time, sound_times


def test_stamps_that_do_not_ascend_fall_back_to_the_rate_and_then_to_an_assumption() -> None:
    uneven = np.array([0.0, 10, 50])
    for stamps, frame_time, times, how in [
        (uneven, 40.0, [0, 10, 50], "time stamps"),
        (np.array([0.0, 0, 0]), 40.0, [0, 40, 80], "stated frame rate"),
        (np.array([0.0, 50, 20]), 40.0, [0, 40, 80], "stated frame rate"),
        (np.full(3, np.nan), 0.0, [0, 50, 100], "assumed"),
    ]:
        found = sound_times(stamps, frame_time)
        np.testing.assert_allclose(found[0], times)
        assert found[1:] == (how, False)


@pytest.mark.parametrize("absurd", [0.0333, 1.0, 501.0, 5000.0, 33333.0])  # ms; seconds, a clock, microseconds
def test_a_time_that_no_ultrasound_has_is_passed_over(absurd: float) -> None:
    for stamps, frame_time, times, how in [
        (np.arange(3) * absurd, 40.0, [0, 40, 80], "stated frame rate"),
        (np.arange(3) * absurd, absurd, [0, 50, 100], "assumed"),
        (np.full(3, np.nan), absurd, [0, 50, 100], "assumed"),
    ]:
        found = sound_times(stamps, frame_time)
        np.testing.assert_allclose(found[0], times)
        assert found[1:] == (how, True)


@pytest.mark.parametrize("step", [2.0, 33.3, 500.0])
def test_one_pause_or_a_slow_clip_is_no_reason_to_distrust_time_stamps(step: float) -> None:
    stamps = np.cumsum([step] * 9 + [4000.0])
    np.testing.assert_array_equal(sound_times(stamps, 40.0)[0], stamps)


def test_without_a_rate_frames_are_spread_evenly_in_time_not_in_number() -> None:
    even = np.arange(33) * 50.0
    np.testing.assert_array_equal(choose_frames(even, 17)[0], np.arange(0, 33, 2))
    uneven = np.array([0.0, 1, 2, 3, 4, 100])
    np.testing.assert_array_equal(choose_frames(uneven, 3)[0], [0, 4, 5])
    np.testing.assert_array_equal(choose_frames(np.arange(4) * 50.0, 8)[0], [0, 0, 1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(choose_frames(np.array([7.0]), 3)[0], [0, 0, 0])


def test_of_two_equally_near_frames_the_earlier_is_taken_however_the_digits_fall() -> None:
    times = np.arange(40) * (1000 / 30)
    moments = np.arange(13) * 100 + 50 / 3
    np.testing.assert_array_equal(nearest_in_time(times, moments), np.arange(13) * 3)


@pytest.mark.parametrize("rate", [20.0, 10.0, 4.0])
def test_a_rate_takes_the_middle_of_a_long_clip_at_equal_distances(rate: float) -> None:
    times = np.arange(101) * 50.0
    chosen, too_short = choose_frames(times, 16, rate)
    assert not too_short
    np.testing.assert_allclose(np.diff(times[chosen]), 1000 / rate)
    assert abs(times[chosen].mean() - times.mean()) <= 50 / 2 + 1e-9


@pytest.mark.parametrize("hz", [12.5, 25.0, 29.97, 60.0])
def test_moments_are_met_to_half_a_frame_whatever_the_clips_own_rate(hz: float) -> None:
    times = np.arange(round(6 * hz)) * 1000 / hz
    chosen, _ = choose_frames(times, 24, 5.0)
    moments = times[chosen[0]] + np.arange(24) * 200
    assert np.abs(times[chosen] - moments).max() <= 500 / hz + 1e-6


def test_a_rate_is_met_where_frames_are_unevenly_spaced() -> None:
    times = np.concatenate([np.arange(100) * 10.0, 1000 + np.arange(20) * 100.0])  # 100 Hz, then 10 Hz
    chosen, too_short = choose_frames(times, 25, 10.0)
    assert not too_short
    moments = times[chosen[0]] + np.arange(25) * 100
    assert np.abs(times[chosen] - moments).max() <= 50  # half of the longest distance
    assert (np.diff(chosen) == 1).any()
    assert (np.diff(chosen) == 10).any()


def test_a_clip_that_is_too_short_runs_to_and_fro() -> None:
    chosen, too_short = choose_frames(np.arange(5) * 100.0, 12, 10.0)
    np.testing.assert_array_equal(chosen, [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3])
    assert too_short


def test_rounded_stamps_do_not_make_a_clip_too_short() -> None:
    times = np.round(np.arange(16) * 1000 / 30)  # as Matroska has them
    times[-1] -= 1
    chosen, too_short = choose_frames(times, 16, 30.0)
    assert not too_short
    np.testing.assert_array_equal(chosen, np.arange(16))
