"""Quantiles of a mixture."""

import pytest
import torch

from data_modules.errors import InputError
from poddistill.losses.quantiles import mixture_quantiles


def slow(free: list[float], obliterated: list[float], prevalence: float, level: float) -> float:
    """The smallest logit that the wanted part of the mixture lies at or below."""
    for x in sorted(free + obliterated):
        below_free = sum(value <= x for value in free) / len(free)
        below_obliterated = sum(value <= x for value in obliterated) / len(obliterated)
        if (1 - prevalence) * below_free + prevalence * below_obliterated >= level - 1e-6:
            return x
    raise AssertionError


@pytest.mark.parametrize("prevalence", [0.1, 0.35, 0.5, 0.9])
def test_quantiles_equal_a_slow_reference(prevalence):
    generator = torch.Generator().manual_seed(0)
    free, obliterated = (
        torch.randn(23, generator=generator),
        1.5 + torch.randn(9, generator=generator).round(decimals=1),
    )
    at = torch.cat([torch.linspace(0.001, 1, 57), torch.tensor([1 - prevalence])])
    expected = [slow(free.tolist(), obliterated.tolist(), prevalence, level) for level in at.tolist()]
    assert mixture_quantiles(free, obliterated, prevalence, at).tolist() == pytest.approx(expected)


def test_the_prevalence_counts_and_the_numbers_of_cases_do_not():
    two_points = torch.full((7,), -2.0), torch.full((500,), 2.0)
    at = (torch.arange(20) + 0.5).reshape(4, 5) / 20
    quantiles = mixture_quantiles(*two_points, 0.3, at)
    assert quantiles.shape == at.shape
    assert (quantiles == 2).float().mean().item() == pytest.approx(0.3)
    assert torch.equal(quantiles.flatten().sort().values, quantiles.flatten())


@pytest.mark.parametrize("n", [3, 10, 49, 3000])
def test_at_equal_parts_the_quantiles_of_all_levels_are_the_logits(n):
    logits = torch.randn(2 * n, generator=torch.Generator().manual_seed(n))
    for at in (torch.arange(1, 2 * n + 1) / (2 * n), (torch.arange(2 * n) + 0.5) / (2 * n)):
        assert torch.equal(mixture_quantiles(logits[:n], logits[n:], 0.5, at), logits.sort().values)


def test_a_class_of_prevalence_0_is_never_met():
    free, obliterated = torch.tensor([0.0, 1.0]), torch.tensor([-5.0, 5.0])
    at = torch.tensor([0.0, 0.5, 1.0])
    assert mixture_quantiles(free, obliterated, 0.0, at).tolist() == [0.0, 0.0, 1.0]
    assert mixture_quantiles(obliterated, free, 1.0, at).tolist() == [0.0, 0.0, 1.0]
    assert mixture_quantiles(free, torch.empty(0), 0.0, at).tolist() == [0.0, 0.0, 1.0]


def test_gradients_reach_the_logits_that_are_chosen():
    free = torch.tensor([0.0, 1.0], requires_grad=True)
    mixture_quantiles(free, torch.tensor([3.0]), 0.5, torch.tensor([0.4, 0.45, 0.9])).sum().backward()
    assert free.grad.tolist() == [0.0, 2.0]


def test_bad_input_is_told_in_one_line():
    logits = torch.zeros(2)
    with pytest.raises(InputError, match=r"^prevalence is 1\.2: give a part in \[0, 1\]$"):
        mixture_quantiles(logits, logits, 1.2, logits)
    with pytest.raises(InputError, match=r"^prevalence is 0\.2, but there is no logit of a case that is obliterated:"):
        mixture_quantiles(logits, torch.empty(0), 0.2, logits)
