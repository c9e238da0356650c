"""How both tiers rank together."""

from __future__ import annotations

import numpy as np

from amatch_widgets.query.blend import blend


def test_the_blend_deals_out_the_instant_scores_in_the_new_order() -> None:
    instant = np.array([0.9, 0.8, 0.2, 0.1], np.float32)
    deep = np.array([0.1, 0.9, 0.5, 0.3], np.float32)
    mixed = blend(instant, deep, 2.0)
    assert sorted(mixed) == sorted(instant)
    assert mixed.argmax() == 1
    assert mixed.dtype == np.float32


def test_a_blend_with_the_same_order_changes_nothing() -> None:
    instant = np.array([0.2, 0.9, np.nan, 0.4], np.float32)
    np.testing.assert_array_equal(blend(instant, instant, 1.0), instant)


def test_an_image_that_only_the_instant_tier_has_rated_keeps_its_place() -> None:
    instant = np.linspace(0.1, 0.9, 9, dtype=np.float32)
    deep = instant.copy()
    deep[4] = np.nan
    mixed = blend(instant, deep, 1.0)
    assert mixed[4] == instant[4]
    np.testing.assert_array_equal(mixed, instant)


def test_no_scores_at_all_stay_none() -> None:
    nothing = np.full(3, np.nan, np.float32)
    assert np.isnan(blend(nothing, np.array([0.1, 0.2, 0.3], np.float32), 1.0)).all()
