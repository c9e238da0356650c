from __future__ import annotations

import pytest

from amatch_widgets.score.embeddings import EmbeddingStore
from tests.score.helper import KEY, N


@pytest.fixture
def roots(tmp_path):
    return [tmp_path / "cache", tmp_path / "run" / "embeddings"]


@pytest.fixture
def opened(roots):
    """Open stores; all are closed in the end."""
    stores = []

    def make(*, key=KEY, n=N, roots=roots, **options):
        stores.append(EmbeddingStore.open(roots, key, n, **options))
        return stores[-1]

    yield make
    for store in stores:
        store.close()
