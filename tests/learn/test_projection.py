"""The projection: two whitened spaces, kept with their vectors."""

from __future__ import annotations

import numpy as np
import pytest

from amatch_widgets.learn.projection import Projection

BLOCKS = (
    ("early.mean", slice(0, 8)),
    ("early.std", slice(8, 16)),
    ("final.mean", slice(16, 48)),
    ("final.std", slice(48, 80)),
)
D = 80


def features(n=600, seed=0, scale=5.0):
    """Correlated features of very different sizes."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(D, D)) * np.geomspace(0.1, scale, D)
    return (rng.normal(size=(n, D)) @ mixing + 3).astype(np.float32)


def by_the_book(raw, columns, weights, dims):
    """The recipe word by word, in float64 and with a full eigendecomposition."""
    x = raw[:, columns].astype(np.float64)
    x = (x - x.mean(0)) / (x.std(0) + 1e-3) * weights
    x -= x.mean(0)
    variances, directions = np.linalg.eigh(x.T @ x / len(x))
    variances, directions = variances[::-1][:dims], directions[:, ::-1][:, :dims]
    z = x @ directions / np.sqrt(variances + 0.3 * variances.mean())
    return z / np.sqrt((z**2).sum(1).mean())


def similarity(a, b):
    """Distances between all, which know nothing of the signs of directions."""
    return np.corrcoef((a @ a.T).ravel(), (b @ b.T).ravel())[0, 1]


@pytest.mark.parametrize("n", [40, 600])
def test_the_spaces_are_those_of_the_recipe(n):
    raw = features(n)
    projection = Projection.fit(raw, BLOCKS, seed=0)
    vectors = projection.apply(raw)
    assert vectors.dtype == np.float16
    assert vectors.shape == (n, projection.dims)
    final, late = (vectors[:, space].astype(np.float64) for space in projection.spaces)
    n_final, n_late = min(32, n - 1), min(D, n - 1)
    assert final.shape[1] == n_final
    assert late.shape[1] == n_late
    weights = np.concatenate([np.full(b.stop - b.start, (b.stop - b.start) ** -0.5) for _, b in BLOCKS])
    for found, wanted in (
        (final, by_the_book(raw, slice(16, 48), 1.0, n_final)),
        (late, by_the_book(raw, slice(0, D), weights, n_late)),
    ):
        assert (found**2).sum(1).mean() == pytest.approx(1, rel=1e-3)
        assert similarity(found, wanted) > 0.9999


def test_of_many_features_the_256_first_directions_are_kept():
    rng = np.random.default_rng(0)
    raw = (rng.normal(size=(800, 700)) * np.geomspace(1, 0.01, 700)).astype(np.float32)
    raw = raw @ rng.normal(size=(700, 700)).astype(np.float32)
    blocks = (("final.mean", slice(0, 600)), ("final.std", slice(600, 700)))
    projection = Projection.fit(raw, blocks, seed=0)
    assert projection.spaces == (slice(0, 256), slice(256, 512))
    assert projection.dims == 512
    found = projection.apply(raw).astype(np.float64)[:, projection.spaces[0]]
    assert similarity(found, by_the_book(raw, slice(0, 600), 1.0, 256)) > 0.9995


def test_the_same_seed_gives_the_same_projection():
    raw = features(500)
    first, again = (Projection.fit(raw, BLOCKS, seed=3).apply(raw) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_an_image_gets_the_same_vector_whatever_is_beside_it():
    raw = features(300)
    projection = Projection.fit(raw, BLOCKS, seed=0)
    one_by_one = np.concatenate([projection.apply(row[None]) for row in raw[:20]])
    np.testing.assert_allclose(one_by_one, projection.apply(raw)[:20], atol=1e-3)


def test_it_survives_a_file(tmp_path):
    raw = features(100)
    projection = Projection.fit(raw, BLOCKS, seed=0)
    np.savez(tmp_path / "p.npz", **projection.to_arrays())
    with np.load(tmp_path / "p.npz", allow_pickle=False) as arrays:
        again = Projection.from_arrays(arrays)
    assert again.spaces == projection.spaces
    assert again.dims == projection.dims
    np.testing.assert_array_equal(again.apply(raw), projection.apply(raw))


def test_a_part_that_is_missing_or_does_not_fit_is_named():
    arrays = Projection.fit(features(50), BLOCKS, seed=0).to_arrays()
    with pytest.raises(ValueError, match="late_mean"):
        Projection.from_arrays({k: v for k, v in arrays.items() if k != "late_mean"})
    with pytest.raises(ValueError, match="do not fit"):
        Projection.from_arrays(arrays | {"late_mean": arrays["late_mean"][1:]})


@pytest.mark.parametrize("n", [1, 5])
def test_images_that_are_all_alike_lie_at_the_origin(n):
    raw = np.repeat(features(1), n, 0)
    projection = Projection.fit(raw, BLOCKS, seed=0)
    np.testing.assert_array_equal(projection.apply(raw), np.zeros((n, projection.dims), np.float16))


def test_features_that_never_change_do_no_harm():
    raw = features(200)
    raw[:, 0:8] = 1.5
    vectors = Projection.fit(raw, BLOCKS, seed=0).apply(raw)
    assert np.isfinite(vectors).all()
    assert vectors.astype(np.float32).std() > 0.01


def test_an_image_far_out_keeps_finite_numbers():
    raw = features(200)
    projection = Projection.fit(raw, BLOCKS, seed=0)
    assert np.isfinite(projection.apply(raw * np.float32(1e9))).all()


def test_features_that_are_not_finite_or_not_there_are_refused():
    raw = features(20)
    raw[3, 5] = np.nan
    for bad in (raw, raw[:0]):
        with pytest.raises(ValueError, match="cannot be fitted"):
            Projection.fit(bad, BLOCKS, seed=0)
