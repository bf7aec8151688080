"""How the weight of distillation runs over the epochs."""

import pytest

from data_modules.errors import InputError
from poddistill.losses.schedules import ConstantSchedule, ExponentialSchedule, LinearSchedule


def test_exponential_weights_are_the_powers_of_alpha():
    schedule = ExponentialSchedule(0.5)
    assert [schedule(epoch) for epoch in range(4)] == [1.0, 0.5, 0.25, 0.125]


def test_a_constant_weight_stays():
    assert {ConstantSchedule(0.3)(epoch) for epoch in range(5)} == {0.3}


def test_a_linear_weight_reaches_its_end_and_stays_there():
    schedule = LinearSchedule(epochs=4, start=0.8, end=0.2)
    assert [schedule(epoch) for epoch in range(6)] == pytest.approx([0.8, 0.65, 0.5, 0.35, 0.2, 0.2])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ExponentialSchedule(1.0), "alpha is 1.0"),
        (lambda: ExponentialSchedule(0.0), "alpha is 0.0"),
        (lambda: ConstantSchedule(-0.1), "weight is -0.1"),
        (lambda: LinearSchedule(0), "epochs is 0"),
        (lambda: LinearSchedule(5, start=1.2), "start is 1.2"),
        (lambda: LinearSchedule(5, end=float("nan")), "end is nan"),
    ],
)
def test_bad_options_are_told_by_name(make, words):
    with pytest.raises(InputError, match=words):
        make()
