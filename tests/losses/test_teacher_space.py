"""Where features of both networks meet."""

import pytest
import torch

from data_modules.errors import InputError
from poddistill.losses.teacher_space import TeacherSpace


def test_the_banks_features_are_standardised_and_those_that_do_not_vary_are_0(make_bank):
    torch.manual_seed(0)
    features = torch.randn(20, 4) * torch.tensor([1.0, 30.0, 0.0, 0.0]) + torch.tensor([5.0, 0.0, 0.1, 0.0])
    space = TeacherSpace(3, 4)
    space.prepare(make_bank([0.0, 1.0] * 10, features=features))
    mapped = space.standardised(features)
    assert mapped.mean(0).abs().max() < 1e-5
    torch.testing.assert_close(mapped.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0, 0.0]), atol=1e-5, rtol=1e-5)


def test_a_feature_that_changes_by_rounding_alone_is_centred_only(make_bank):
    features = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    features[:, 1] = 100 + 1e-3 * features[:, 1]  # little, but more than rounding
    features[:, 2] = 0.1
    features[::2, 2] = torch.tensor(0.1).nextafter(torch.tensor(1.0))
    space = TeacherSpace(3, 3)
    space.prepare(make_bank([0.0, 1.0] * 10, features=features))
    assert space.scale[2] == 1
    assert space.standardised(features)[:, 2].abs().max() < 1e-6
    torch.testing.assert_close(space.scale[:2], features[:, :2].double().std(0, correction=0).float())


def test_students_features_are_projected_in_float32_under_autocast():
    space = TeacherSpace(3, 4)
    features = torch.randn(5, 3, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        mapped = space(features)
    assert mapped.dtype == torch.float32
    torch.testing.assert_close(mapped, features.float() @ space.projection.weight.T + space.projection.bias)


def test_a_space_that_does_not_fit_is_refused(make_bank):
    with pytest.raises(InputError, match="student_width is 0: give the number of features"):
        TeacherSpace(0, 4)
    space = TeacherSpace(3, 4)
    with pytest.raises(InputError, match="teacher_features is 4, but the teacher's head reads 1: give 1"):
        space.prepare(make_bank([0.0, 1.0]))
    with pytest.raises(InputError, match=r"no TVUS training clip has label 1 \(obliterated\): add such clips"):
        space.prepare(make_bank([0.0, 0.0], features=torch.randn(2, 4)))
    with pytest.raises(InputError, match="student_width is 3, but the student's encoder gives 2: give 2"):
        space(torch.randn(5, 2))
