import pytest

from data_modules.errors import InputError
from data_modules.simulate.settings import SimulationSettings


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("seed", -1),
        ("n_labelled", -1),
        ("n_unlabelled", 10**7),
        ("n_both", 701),
        ("volume_shape", (16, 48)),
        ("volume_shape", (2, 48, 48)),
        ("clip_shape", (16, 8, 64)),
        ("prevalence", 0.0),
        ("prevalence", float("nan")),
        ("label_noise", 0.5),
        ("n_sites", 0),
        ("site_effect", -0.1),
        ("close_free", 1.2),
        ("covariate_strength", float("inf")),
    ],
)
def test_an_illegal_value_is_told_in_one_line_with_its_option(option, value):
    with pytest.raises(InputError) as error:
        SimulationSettings(**{option: value})
    message = str(error.value)
    assert message.startswith(f"{option} is ")
    assert "must be" in message
    assert "\n" not in message


def test_an_empty_cohort_is_refused():
    with pytest.raises(InputError, match="n_labelled"):
        SimulationSettings(n_labelled=0, n_unlabelled=0, n_clips=0)


def test_the_field_of_view_does_not_depend_on_the_shape():
    demo = SimulationSettings()
    paper = SimulationSettings(volume_shape=(96, 160, 160), clip_shape=(32, 112, 112))
    assert demo.voxel_mm == (4, 2, 2)
    assert demo.pixel_mm == (1.25, 1.25)
    for settings in (demo, paper):
        extent = [n * size for n, size in zip(settings.volume_shape, settings.voxel_mm, strict=True)]
        assert extent == pytest.approx([64, 96, 96])
