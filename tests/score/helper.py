"""What several test modules of the embeddings share: vectors told by their index, and stores made of them."""

from __future__ import annotations

import numpy as np

N, D = 50, 8
KEY = {"source": "abc", "n_images": N, "backbone": "test_resnet", "views": [1, 2], "side": 64}
ARRAYS = {"mean": np.arange(6, dtype=np.float32), "late/axes": np.eye(3), "n": np.int64(7)}
WAIT_S = 60


def vectors_of(indices, dims=D):
    """Make vectors that are told by their index, and have no zeros."""
    rows = np.asarray(indices, np.int64)[:, None]
    return ((rows * 7 + np.arange(dims)) % 2039 + 1).astype(np.float16)


def begin(store, dims=D):
    store.set_projection(ARRAYS, dims)
    return store


def fill(store):
    """Write all that is missing."""
    missing = store.missing
    store.write(missing, vectors_of(missing, store.dims))
    return store


def made_before(opened, *, n_done=N):
    """Make a store, close it, and return its folder."""
    store = begin(opened())
    store.write(np.arange(n_done), vectors_of(np.arange(n_done)))
    store.close()
    return store.folder
