"""All formats, read in memory, from a web server and from an object store, as from a disk."""

from __future__ import annotations

import numpy as np
import pytest

from amatch_widgets.images.source import open_source, source_from_spec
from amatch_widgets.images.testing import SourceContract

KINDS = ("folder", "hdf5", "zarr 2", "zarr 3", "zip", "stores", "parquet", "parquets", "fits", "npy")


class RemoteContract(SourceContract):
    """Those of any source, and that it is the one on the disk."""

    @pytest.fixture(params=KINDS)
    def kind(self, request):
        return request.param

    def test_it_is_the_same_as_on_a_disk(self, source, kind, written):
        root, paths = written
        here = open_source(root / paths[kind])
        assert list(source.ids) == list(here.ids)
        assert (source.name, source.channels) == (here.name, here.channels)
        assert source.fingerprint() == here.fingerprint()
        for i in range(len(here)):
            np.testing.assert_array_equal(source.read(i), here.read(i))


class TestMemory(RemoteContract):
    @pytest.fixture
    def source(self, kind, memory, written):
        return open_source(f"{memory}/{written[1][kind]}")


class TestWeb(RemoteContract):
    @pytest.fixture
    def source(self, kind, web, written):
        return open_source(f"{web.url}/{written[1][kind]}")


class TestObjectStore(RemoteContract):
    @pytest.fixture(params=["folder", "hdf5", "stores", "parquets"])  # a new process takes s3fs seconds
    def kind(self, request):
        return request.param

    @pytest.fixture
    def source(self, kind, bucket, written):
        url, options = bucket
        return open_source(f"{url}/{written[1][kind]}", storage_options=options)


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_store_gives_what_is_on_a_disk(kind, bucket, written):
    url, options = bucket
    source = open_source(f"{url}/{written[1][kind]}", storage_options=options)
    here = open_source(written[0] / written[1][kind])
    assert source.fingerprint() == here.fingerprint()
    np.testing.assert_array_equal(source.read(1), here.read(1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_on_a_server_is_opened_again_from_its_spec(kind, web, written):
    source = open_source(f"{web.url}/{written[1][kind]}")
    again = source_from_spec(source.spec())
    assert again.fingerprint() == source.fingerprint()
    np.testing.assert_array_equal(again.read(1), source.read(1))
