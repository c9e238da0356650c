"""What images are sorted by, against a sort of the whole."""

from __future__ import annotations

import numpy as np
import pytest

from amatch_widgets.archive import key
from amatch_widgets.archive.key import KEYS, Best, Found, Span, mixed

TINY = np.float32(1e-45)
EXTREMES = np.array(
    [0, -0.0, TINY, 2 * TINY, 1e-30, 1e-8, 0.25, 0.5 - 2**-25, 0.5, 0.5 + 2**-24, 1 - 2**-24, 1], np.float32
)


@pytest.mark.parametrize("how", ["highest", "lowest", "uncertain"])
def test_keys_sort_as_the_scores_and_are_alike_where_these_are(how):
    scores = np.concatenate([EXTREMES, np.random.default_rng(0).beta(0.2, 2, 5000).astype(np.float32)])
    exact = scores.astype(np.float64)
    sorted_by = {"highest": -exact, "lowest": exact, "uncertain": np.abs(exact - 0.5)}[how]
    keys = KEYS[how].of(scores, np.arange(len(scores)))
    order = np.argsort(sorted_by, kind="stable")
    assert np.argsort(keys, kind="stable").tolist() == order.tolist()
    assert ((np.diff(keys[order]) == 0) == (np.diff(sorted_by[order]) == 0)).all()
    assert 0 <= keys.min() <= keys.max() <= KEYS[how].most


def test_a_mixed_order_is_even_and_the_same_for_a_seed():
    scores, indices = np.zeros(100_000, np.float32), np.arange(100_000)
    keys = mixed(3).of(scores, indices)
    np.testing.assert_array_equal(keys[500:600], mixed(3).of(scores[:100], indices[500:600]))
    assert 0 <= keys.min() <= keys.max() <= mixed(3).most
    counts = np.bincount(keys * 10 // (mixed(3).most + 1), minlength=10)
    assert abs(counts - 10_000).max() < 500
    assert abs(np.corrcoef(keys, indices)[0, 1]) < 0.02
    assert (mixed(4).of(scores, indices) != keys).mean() > 0.99
    mixed(-1).of(scores, indices)


@pytest.mark.parametrize("bits", [1, 3, 16])
@pytest.mark.parametrize("most", [0, 1, 5, 1000])
def test_the_steps_of_a_span_are_a_whole_and_lead_to_each_image(most, bits, monkeypatch):
    monkeypatch.setattr(key, "_STEP_BITS", bits)
    rng = np.random.default_rng(0)
    keys, indices = rng.integers(0, most + 1, 300), np.arange(300)
    for wanted in (0, 150, 299):
        span = Span(0, most, 0, 299)
        while span.n_steps > 1:
            inside = span.has(keys, indices)
            counts = span.by_step(keys[inside], indices[inside])
            assert (len(counts), counts.sum()) == (span.n_steps, inside.sum())
            assert span.n_steps <= 2**bits
            steps = [span.step(k) for k in range(span.n_steps)]
            assert [step.has(keys, indices).sum() for step in steps] == counts.tolist()
            (span,) = (step for step in steps if step.has(keys[[wanted]], indices[[wanted]])[0])
        assert np.flatnonzero(span.has(keys, indices)).tolist() == [wanted]


@pytest.mark.parametrize("n_keys", [1, 3, 10_000])
@pytest.mark.parametrize("n", [1, 20, 5000])
def test_the_best_are_the_first_of_a_sort_whatever_comes_first(n, n_keys):
    rng = np.random.default_rng(0)
    keys, scores = rng.integers(0, n_keys, 2000), rng.random(2000).astype(np.float32)
    best = Best(n)
    for some in np.array_split(rng.permutation(2000), 17):
        best.add(Found(keys[some], some, scores[some]))
    expected = np.lexsort((np.arange(2000), keys))[:n]
    found = best.sorted()
    assert found.indices.tolist() == expected.tolist()
    np.testing.assert_array_equal(found.scores, scores[expected])
    assert len(Best(n).sorted()) == 0
