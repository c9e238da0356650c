"""The synthetic sky: what it promises about seeds, kinds and numbers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from amatch_widgets import demo
from amatch_widgets._sky import NORMAL_KINDS, RARE_KINDS, draw
from amatch_widgets.errors import ConfigError
from amatch_widgets.images.testing import SourceContract

KINDS = (*NORMAL_KINDS, *RARE_KINDS)


class TestSky(SourceContract):
    @pytest.fixture
    def source(self):
        return demo.sky(12, seed=3, size=20, prevalence=0.3)


def test_by_default_one_percent_of_twenty_thousand_is_rare():
    sky = demo.sky()
    assert len(sky) == 20_000
    assert Counter(sky.truth.values()) == {"normal": 19_800, "anomaly": 200}
    assert sky.read(0).shape == (64, 64, 3)
    assert sky.read(0).dtype == np.uint8


@pytest.mark.parametrize(
    ("n", "prevalence", "n_rare"),
    [(1000, 0.01, 10), (149, 0.01, 1), (150, 0.01, 2), (7, 0.01, 1), (1, 0.01, 1), (50, 0, 0), (9, 1, 9)],
)
def test_exactly_the_nearest_whole_number_is_rare_and_at_least_one(n, prevalence, n_rare):
    truth = demo.sky(n, prevalence=prevalence).truth
    assert sum(label == "anomaly" for label in truth.values()) == n_rare


def test_kinds_agree_with_the_truth():
    sky = demo.sky(600, seed=1, prevalence=0.1)
    assert list(sky.kinds) == list(sky.truth) == list(sky.ids)
    assert all((sky.truth[i] == "anomaly") == (kind in RARE_KINDS) for i, kind in sky.kinds.items())
    counts = Counter(sky.kinds.values())
    assert [counts[kind] for kind in RARE_KINDS] == [20, 20, 20]
    assert all(140 < counts[kind] < 220 for kind in NORMAL_KINDS)


def test_the_truth_cannot_be_changed():
    with pytest.raises(TypeError):
        demo.sky(3).truth["0"] = "normal"


def test_another_seed_is_another_sky():
    first, second = demo.sky(100, seed=1), demo.sky(100, seed=2)
    assert first.kinds != second.kinds
    assert (first.read(5) != second.read(5)).any()
    assert first.fingerprint() != second.fingerprint()


def test_an_image_does_not_depend_on_what_was_read_before():
    sky, again = demo.sky(20), demo.sky(20)
    expected = [sky.read(i) for i in range(20)]
    for i in (13, 2, 2, 19):
        np.testing.assert_array_equal(again.read(i), expected[i])


def test_a_larger_sky_begins_with_the_same_common_images():
    small, large = demo.sky(30, prevalence=0), demo.sky(300, prevalence=0)
    assert [small.kinds[i] for i in small.ids] == [large.kinds[large.ids[n]] for n in range(30)]
    np.testing.assert_array_equal(small.read(7), large.read(7))


def test_the_spec_makes_the_same_sky():
    sky = demo.sky(50, seed=4, size=32, prevalence=0.2)
    spec = sky.spec()
    assert spec.pop("kind") == "demo"
    again = demo.sky(**spec)
    assert again.fingerprint() == sky.fingerprint()
    assert again.kinds == sky.kinds


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [16, 33, 64, 150])
def test_each_kind_is_a_bright_object_on_a_dark_noisy_sky(kind, size):
    for seed in range(5):
        image = draw(kind, np.random.default_rng(seed), size)
        assert (image.shape, image.dtype) == ((size, size, 3), np.uint8)
        centre = image[size // 4 : -size // 4, size // 4 : -size // 4]
        corners = image[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert centre.max() > 90
        assert np.median(corners) < 60
        assert image.std() > 3


def test_common_kinds_and_rare_kinds_have_the_same_range_of_brightness():
    """What is rare must be told by its shape, not by a number."""
    brightness = {
        kinds: [draw(kind, np.random.default_rng(seed), 32).mean() for kind in kinds for seed in range(60)]
        for kinds in (NORMAL_KINDS, RARE_KINDS)
    }
    low, high = np.percentile(brightness[NORMAL_KINDS], [5, 95])
    inside = np.mean([low < value < high for value in brightness[RARE_KINDS]])
    assert inside > 0.7


def test_an_elliptical_is_redder_than_a_spiral():
    def redness(kind):
        images = np.stack([draw(kind, np.random.default_rng(seed), 64) for seed in range(20)]).astype(float)
        return images[..., 0].sum() / images[..., 2].sum()

    assert redness("elliptical") > 1.2 > redness("spiral")


def test_first_labels_are_right_and_the_same_for_a_seed():
    sky = demo.sky(1000, prevalence=0.02)
    labels = sky.first_labels(5, 45, seed=1)
    assert Counter(labels.values()) == {"anomaly": 5, "normal": 45}
    assert all(sky.truth[i] == label for i, label in labels.items())
    assert labels == sky.first_labels(5, 45, seed=1)
    assert labels != sky.first_labels(5, 45, seed=2)


def test_more_first_labels_than_there_are_is_refused():
    with pytest.raises(
        ConfigError, match=r"5 images of class 'anomaly' were asked for; this sky has 1. Ask for"
    ):
        demo.sky(100).first_labels()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, r"sky\(n=0\): allowed is a whole number from 1"),
        ({"n": 10.0}, "n=10.0"),
        ({"seed": -1}, r"sky\(seed=-1\): allowed"),
        ({"size": 8}, "from 16 to 1024"),
        ({"prevalence": 1.5}, r"sky\(prevalence=1.5\): allowed is a share from 0 to 1"),
        ({"prevalence": "1%"}, "prevalence='1%'"),
        ({"prevalence": float("nan")}, "prevalence=nan"),
    ],
)
def test_an_option_out_of_its_range_says_what_is_allowed(options, message):
    with pytest.raises(ConfigError, match=message):
        demo.sky(**options)


def test_the_repr_says_how_many_are_rare():
    assert repr(demo.sky(500)) == "DemoSource(500 images of 64 px, 5 rare, seed=0)"
