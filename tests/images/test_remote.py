"""Sources behind URLs: what is asked of a server how often, what it does wrong, and what stays secret."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
import threading
import traceback
import urllib.request
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import h5py
import numpy as np
import pytest
import zarr
from astropy.io import fits
from PIL import Image
from zarr.storage import ZipStore

from amatch_widgets.archive.parts import Parts
from amatch_widgets.archive.run import score_missing
from amatch_widgets.errors import ConfigError, ImageReadError, MissingExtraError, SourceError
from amatch_widgets.images import blocks, hdf5_remote, server
from amatch_widgets.images.description import describe
from amatch_widgets.images.hdf5 import HDF5Source
from amatch_widgets.images.npy import NpySource
from amatch_widgets.images.packed import PackedIds
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.images.remote import Remote
from amatch_widgets.images.source import open_source, read_many, source_from_spec
from amatch_widgets.session import Session

KINDS = ("folder", "hdf5", "zarr 2", "zarr 3", "zip", "stores", "parquet", "parquets", "fits", "npy")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Ask a server that does not answer again at once, and always."""
    monkeypatch.setattr(server, "_WAITS_S", (0.0, 0.0))
    monkeypatch.setattr(server, "_GONE_S", 0.0)


@pytest.fixture
def forgetful(monkeypatch):
    """Hold nothing in memory."""
    monkeypatch.setattr(blocks, "_IN_MEMORY", 0)


@pytest.fixture
def root(written, tmp_path):
    """Give a copy of the written folder that may be changed."""
    return shutil.copytree(written[0], tmp_path / "root")


def all_of(source):
    return [source.read(i) for i in range(len(source))]


# ---- what is asked how often ----------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_read_once_is_not_asked_for_again(kind, web, written):
    source = open_source(f"{web.url}/{written[1][kind]}")
    first = all_of(source)
    web.requests.clear()
    for image, again in zip(first, all_of(source), strict=True):
        np.testing.assert_array_equal(image, again)
    assert len(dict(read_many(source, range(len(source))))) == len(source)
    assert not web.requests


@pytest.mark.parametrize("kind", ["folder", "parquets", "fits", "npy", "stores"])
def test_another_process_finds_what_was_read_on_this_disk(kind, web, written):
    first = all_of(open_source(f"{web.url}/{written[1][kind]}"))
    web.requests.clear()
    for image, again in zip(first, all_of(open_source(f"{web.url}/{written[1][kind]}")), strict=True):
        np.testing.assert_array_equal(image, again)
    # Asked is what there is, and how large.
    data = [
        path for method, path in web.requests if method == "GET" and re.search(r"(png|npy|fits)$|/c/", path)
    ]
    assert not data


def test_nothing_is_kept_where_nothing_shall_be(web, cache, forgetful):
    source = open_source(f"{web.url}/cube.npy", cache_gb=0)
    source.read(0)
    web.requests.clear()
    source.read(0)
    assert web.requests
    assert not list(cache.iterdir())


def test_the_cache_stays_below_its_limit(serve, tmp_path, cache, monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK", 20_000)
    (tmp_path / "web").mkdir()
    np.save(tmp_path / "web" / "cube.npy", np.zeros((40, 100, 100), np.uint8))
    source = open_source(f"{serve(tmp_path / 'web').url}/cube.npy", cache_gb=2e-4)
    for _ in range(2):
        for i in range(40):
            source.read(i)
            assert sum(p.stat().st_size for p in cache.rglob("??/*") if p.is_file()) <= 200_000
    assert sum(p.stat().st_size for p in cache.rglob("??/*") if p.is_file()) >= 100_000


def test_blocks_that_follow_each_other_are_asked_for_together(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK", 1000)
    content = np.random.default_rng(1).bytes(20_500)
    (tmp_path / "a.bin").write_bytes(content)
    web = serve(tmp_path)
    place = Remote(f"{web.url}/a.bin")
    with place.open() as file:
        file.raw.seek(4_100)
        assert file.raw.read(100) == content[4_100:4_200]
    web.requests.clear()
    with place.open() as file:
        assert file.read() == content
    assert sum(web.requests.values()) == 2  # what lies before the block that is here, and what lies behind


def test_threads_that_want_the_same_ask_once(serve, tmp_path):
    content = np.random.default_rng(1).bytes(10_000)
    (tmp_path / "a.bin").write_bytes(content)
    web = serve(tmp_path)
    place = Remote(f"{web.url}/a.bin")
    version = place.version()
    web.requests.clear()
    with ThreadPoolExecutor(8) as executor:
        found = list(executor.map(lambda _: place.open(version).read(), range(32)))
    assert found == [content] * 32
    assert sum(web.requests.values()) == 1


def test_what_has_changed_on_the_server_is_read_anew(root, serve):
    web = serve(root)
    assert open_source(f"{web.url}/cube.npy").read(0).any()
    np.save(root / "cube.npy", np.zeros((6, 48, 45, 2), np.uint8))
    assert not open_source(f"{web.url}/cube.npy").read(0).any()


def test_a_store_that_was_written_anew_is_read_anew(root, serve):
    web = serve(root)
    assert open_source(f"{web.url}/v3.zarr").read(0).any()
    shutil.rmtree(root / "v3.zarr")
    zarr.open_group(root / "v3.zarr", mode="w").create_array(
        "images", data=np.zeros((6, 48, 45, 3), np.uint8), chunks=(2, 48, 45, 3), fill_value=7
    )
    assert (open_source(f"{web.url}/v3.zarr").read(0) != 1).all()


# ---- what goes wrong ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "zarr 2", "zarr 3", "stores"])
def test_images_of_a_server_that_fails_are_listed_and_those_here_are_still_read(kind, web, written):
    source = open_source(f"{web.url}/{written[1][kind]}")
    first = source.read(0)
    web.answer = lambda path: 503
    with pytest.raises(ImageReadError, match=r"the server failed \(status 503\)") as caught:
        source.read(5)
    assert caught.value.image_id == source.ids[5]
    np.testing.assert_array_equal(source.read(0), first)
    web.answer = lambda path: None
    assert len(all_of(source)) == len(source)


@pytest.mark.parametrize("kind", ["hdf5", "zip", "parquet", "fits", "npy"])
@pytest.mark.usefixtures("forgetful")
def test_the_images_of_one_file_on_a_server_that_dies_are_listed(kind, web, written, monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK", 500)
    monkeypatch.setattr(hdf5_remote, "_PIECE", 500)
    monkeypatch.setattr(hdf5_remote, "_AHEAD", 1)
    source = open_source(f"{web.url}/{written[1][kind]}", cache_gb=0)
    source.read(0)
    web.close()
    # Of HDF5 and Parquet, two are read together.
    found = dict(read_many(source, range(2, len(source))))
    assert sorted(found) == list(range(2, len(source)))
    for index, error in found.items():
        assert isinstance(error, ImageReadError)
        assert error.image_id == source.ids[index]
        assert "the server does not answer" in error.reason


def test_one_image_that_cannot_be_read_stops_no_other(root, serve):
    web = serve(root)
    web.answer = {"/folder/a%200/2.png": 500, "/folder/a%200/4.png": 403}.get
    source = open_source(f"{web.url}/folder")
    found = {source.ids[i]: image for i, image in read_many(source, range(len(source)))}
    assert "status 500" in found["a 0/2.png"].reason
    assert "no permission" in found["a 0/4.png"].reason
    assert sum(isinstance(image, np.ndarray) for image in found.values()) == 5


def test_an_image_that_is_gone_is_listed(root, serve):
    source = open_source(f"{serve(root).url}/folder")
    (root / "folder" / source.ids[0]).unlink()
    with pytest.raises(ImageReadError, match="the file is gone since the folder was opened"):
        source.read(0)
    assert source.read(1).size


def test_a_file_that_shrinks_while_it_is_read_is_said_to_have_changed(root, serve, monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK", 500)
    source = open_source(f"{serve(root).url}/cube.npy")
    content = (root / "cube.npy").read_bytes()
    (root / "cube.npy").write_bytes(content[:1000])
    with pytest.raises(ImageReadError, match="the file has changed on the server: open the source again"):
        source.read(5)


@pytest.mark.parametrize(
    ("images", "length", "message"),
    [
        (np.zeros((10, 8, 8)), 1000, r"go on to byte 5248, the file ends at byte 1000. It may be cut off"),
        (np.array([None, 1]), None, "its pixels are Python objects"),
        (np.zeros((5, 8, 9), order="F"), None, r"are in Fortran order: write it with .*ascontiguousarray"),
        (np.zeros((8, 9)), None, r"has shape \(8, 9\).*Allowed is"),
        (b"PK\x03\x04 and no more", None, "cannot be opened as a .npy array"),
    ],
)
def test_an_array_that_cannot_be_read_is_refused_when_it_is_opened(images, length, message, serve, tmp_path):
    path = tmp_path / "x.npy"
    if isinstance(images, bytes):
        path.write_bytes(images)
    else:
        np.save(path, images, allow_pickle=True)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(SourceError, match=message):
        open_source(f"{serve(tmp_path).url}/x.npy")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("forgetful")
def test_describing_an_image_asks_no_server(kind, web, written):
    source = open_source(f"{web.url}/{written[1][kind]}", cache_gb=0)
    web.requests.clear()
    assert describe(source, 0) == ({"File name": "0.png"} if kind == "folder" else {})
    assert not web.requests


def test_the_mask_of_fits_files_is_applied(serve, tmp_path):
    image, bad = np.ones((9, 8), np.float32), np.eye(9, 8, dtype=np.uint8)
    hdus = [fits.PrimaryHDU(image), fits.ImageHDU(bad, name="DQ")]
    (tmp_path / "folder").mkdir()
    fits.HDUList(hdus).writeto(tmp_path / "folder" / "a.fits")
    many = [fits.PrimaryHDU(np.stack([image] * 30)), hdus[1]]
    fits.HDUList(many).writeto(tmp_path / "cube.fits")
    url = serve(tmp_path).url
    for path in ("folder", "cube.fits"):
        source = source_from_spec(open_source(f"{url}/{path}", mask="DQ").spec())
        np.testing.assert_array_equal(np.isnan(source.read(0)[..., 0]), bad != 0)


def test_a_chunk_that_was_never_written_is_its_fill_value(serve, tmp_path):
    store = zarr.create_array(
        tmp_path / "a.zarr", shape=(4, 9, 8), chunks=(2, 9, 8), dtype="u1", fill_value=7
    )
    store[:2] = 1
    source = open_source(f"{serve(tmp_path).url}/a.zarr")
    assert (source.read(3) == 7).all()


def test_a_store_that_is_gone_is_not_taken_for_one_of_fill_values(root, serve):
    source = open_source(f"{serve(root).url}/v3.zarr")
    source.read(0)
    shutil.rmtree(root / "v3.zarr")
    with pytest.raises(ImageReadError, match="the store is gone since it was opened"):
        source.read(5)


def packed(folder):
    """Write a store in a zip file, of whose two chunks one was never written."""
    with ZipStore(folder / "a.zarr.zip", mode="w") as store:
        shape, chunks = (4, 9, 8), (2, 9, 8)
        zarr.create_array(store, shape=shape, chunks=chunks, dtype="u1", fill_value=7)[:2] = 1


def test_a_chunk_that_is_not_in_a_zip_file_is_its_fill_value_while_that_is_there(serve, tmp_path):
    packed(tmp_path)
    source = open_source(f"{serve(tmp_path).url}/a.zarr.zip")
    assert (source.read(0) == 1).all()
    assert (source.read(3) == 7).all()
    (tmp_path / "a.zarr.zip").unlink()
    with pytest.raises(ImageReadError, match="the store is gone since it was opened"):
        source.read(3)


def test_a_zip_file_that_is_cut_off_is_refused(serve, tmp_path):
    packed(tmp_path)
    whole = (tmp_path / "a.zarr.zip").read_bytes()
    (tmp_path / "a.zarr.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"cannot be opened as a Zarr store: BadZipFile"):
        open_source(f"{serve(tmp_path).url}/a.zarr.zip")


def test_a_server_that_answers_again_is_asked_again(root, serve):
    web = serve(root)
    source = open_source(f"{web.url}/folder")
    failures = iter([503, 500])
    web.answer = lambda path: next(failures, None)
    assert source.read(0).size


def test_a_server_that_does_not_answer_is_left_alone_for_a_while(web, monkeypatch):
    monkeypatch.setattr(server, "_GONE_S", 60.0)
    source = open_source(f"{web.url}/folder")
    web.answer = lambda path: 503
    web.requests.clear()
    for i in range(7):
        with pytest.raises(ImageReadError, match="status 503"):
            source.read(i)
    assert len({path for _, path in web.requests}) == 3


def test_an_image_that_a_server_fails_to_send_keeps_no_other_away(web, monkeypatch):
    monkeypatch.setattr(server, "_GONE_S", 60.0)
    source = open_source(f"{web.url}/folder", cache_gb=0)
    web.answer = {"/folder/a%200/2.png": 500}.get
    for _ in range(4):
        with pytest.raises(ImageReadError, match="status 500"):
            source.read(source.ids.index("a 0/2.png"))
        assert source.read(0).size


def test_names_with_all_kinds_of_characters_lead_to_their_files(serve, tmp_path):
    names = ["a%20b.png", "a b.png", "ü?#&=+.png", r"\udc80.png", "[1].PNG"]
    for i, name in enumerate(names):
        Image.new("L", (4, 4), 10 * i).save(tmp_path / name, "png")
    source = open_source(serve(tmp_path).url)
    here = open_source(tmp_path)
    assert isinstance(source.ids, PackedIds)
    assert list(source.ids) == list(here.ids)
    for i in range(len(names)):
        np.testing.assert_array_equal(source.read(i), here.read(i))


def test_a_thread_that_is_interrupted_interrupts_no_other(web):
    place = Remote(f"{web.url}/cube.npy")
    version, fetching, waiting = place.version(), threading.Event(), threading.Event()
    reads = place._host.server.read

    def read(*args):
        if not fetching.is_set():
            fetching.set()
            assert waiting.wait(30)
            raise KeyboardInterrupt
        return reads(*args)

    place._host.server.read = read
    with ThreadPoolExecutor(2) as executor:
        first = executor.submit(lambda: place.open(version).read())
        assert fetching.wait(30)
        coming = place._host.blocks._state.coming
        (future,) = coming.values()
        future.result = lambda: (waiting.set(), Future.result(future))[1]
        second = executor.submit(lambda: place.open(version).read())
        with pytest.raises(KeyboardInterrupt):
            first.result(30)
        assert len(second.result(30)) == version.size


def test_scoring_from_a_server_that_dies_ends_with_a_word_and_goes_on_later(web, tmp_path, forgetful):
    source = open_source(f"{web.url}/cube.npy", cache_gb=0)
    parts = Parts.create(tmp_path / "x", fingerprint="ab", n_images=6, spec={}, part_rows=1)
    cycle = parts.begin("key", {})

    def score():
        values = lambda images: images[:, 0, 0, 0].astype(np.float32)  # noqa: E731 - a short one
        list(score_missing(source, Preprocess(size=8), values, parts, cycle, batch_size=1, threads=1))

    answers = iter([None, None])
    web.answer = lambda path: next(answers, 503)
    with pytest.raises(SourceError, match=r"None of 3 images in a row of 'cube'.*'2': the server failed"):
        score()
    assert parts.missing(cycle) == [2, 3, 4, 5]
    web.answer = lambda path: None
    score()
    assert not parts.missing(cycle)


# ---- what cannot be opened ------------------------------------------------------------------


@pytest.mark.parametrize("path", ["none", "none.h5", "none.parquet", "none.fits", "none.npy", "none.zarr"])
@pytest.mark.parametrize("where", ["memory", "web", "bucket"])
def test_what_is_not_there_is_said_to_be_missing(path, where, request):
    place = request.getfixturevalue(where)
    url, options = (place.url, None) if where == "web" else (place, None) if where == "memory" else place
    with pytest.raises(SourceError, match=r"no file or folder|needs a zarr.json"):
        open_source(f"{url}/{path}", storage_options=options)


def test_a_missing_bucket_is_said_to_be_missing(object_store):
    with pytest.raises(SourceError, match=r"no file or folder 's3://no-such-bucket/x'. Check the spelling"):
        open_source("s3://no-such-bucket/x", storage_options=object_store)


@pytest.mark.parametrize("path", ["folder", "set.h5", "v3.zarr", "cube.npy"])
def test_a_server_that_is_not_there_is_said_not_to_answer(path, web):
    web.close()
    with pytest.raises(SourceError, match="the server does not answer"):
        open_source(f"{web.url}/{path}")


@pytest.mark.parametrize("path", ["folder", "set.h5", "v3.zarr", "cube.npy"])
def test_what_may_not_be_read_asks_for_credentials(path, web):
    web.answer = lambda path: 403
    with pytest.raises(SourceError, match=r"access is denied. Give credentials, as storage_options="):
        open_source(f"{web.url}/{path}")


@pytest.fixture
def guarded(object_store, bucket):
    """Let the object store look at credentials; give the URL of the bucket."""
    address = f"{object_store['endpoint_url']}/moto-api/reset-auth"

    def allow(n):
        post = urllib.request.Request(address, str(n).encode(), {"Content-Type": "text/plain"}, method="POST")
        urllib.request.urlopen(post, timeout=30).close()

    allow(0)
    yield bucket[0]
    allow("inf")


@pytest.mark.parametrize("path", ["folder", "set.h5", "v3.zarr"])
def test_wrong_credentials_are_told(path, guarded, object_store):
    options = {**object_store, "key": "nobody"}
    with pytest.raises(SourceError, match=r"access is denied|not valid") as caught:
        open_source(f"{guarded}/{path}", storage_options=options)
    assert "nobody" not in str(caught.value)
    assert "not-so-secret" not in str(caught.value)


@pytest.fixture
def nobody(monkeypatch):
    """Take away all credentials that this machine may have."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nonexistent")


@pytest.mark.usefixtures("nobody")
def test_no_credentials_are_told(object_store, bucket):
    with pytest.raises(SourceError, match=r"no credentials.*'anon': True"):
        open_source(f"{bucket[0]}/set.h5", storage_options={"endpoint_url": object_store["endpoint_url"]})


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nosuch://x/y", r"Unknown kind of URL 'nosuch://' in 'nosuch://x/y'. fsspec knows .*s3"),
        ("simplecache::s3://x/y", "is a chain of URLs"),
        ("s3:/bucket/x", "no file or folder 's3:/bucket/x'.*A URL is given as text, not as a Path"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused(url, message):
    with pytest.raises(SourceError, match=message):
        open_source(url)


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'amatch-widgets\[remote\]'"):
        open_source("s3://bucket/x")


def test_a_library_of_no_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingExtraError, match=r"gs:// needs a library that is not installed: .*gcsfs"):
        open_source("gs://bucket/x")


def test_options_that_do_not_suit_the_storage_are_refused_without_their_values():
    with pytest.raises(SourceError, match=r"cannot be opened with storage_options=\['nonsense'\]") as caught:
        open_source("ftp://127.0.0.1:9/x", storage_options={"nonsense": "top-secret"})
    assert "top-secret" not in str(caught.value)


@pytest.mark.parametrize("options", [{"storage_options": {}}, {"cache_gb": 1.0}])
def test_options_of_urls_are_refused_for_paths(tmp_path, options):
    with pytest.raises(SourceError, match=r"is for URLs alone, such as 's3://bucket/folder'"):
        open_source(tmp_path, **options)


def test_a_cache_below_nothing_is_refused():
    with pytest.raises(ConfigError, match="cache_gb=-1: allowed is 0 or more"):
        open_source("memory://x", cache_gb=-1)


def test_a_file_url_is_a_path(tmp_path):
    np.save(tmp_path / "cube.npy", np.zeros((2, 8, 9)))
    source = open_source(f"file://{tmp_path}/cube.npy")
    assert isinstance(source, NpySource)
    assert source.spec() == {"kind": "npy", "path": str(tmp_path / "cube.npy")}


def test_a_url_is_taken_by_the_classes_too(memory):
    assert len(HDF5Source(f"{memory}/set.h5")) == 6


# ---- what stays secret ----------------------------------------------------------------------


def test_credentials_are_never_written_down_or_shown(bucket, object_store):
    source = open_source(f"{bucket[0]}/folder", storage_options={**object_store, "token": "tkn-4711"})
    text = json.dumps(source.spec()) + repr(source) + source.name + "".join(source.ids)
    for secret in ("tester", "not-so-secret", "tkn-4711"):
        assert secret not in text
    assert source.spec() == {
        "kind": "folder",
        "path": "s3://images/set/folder",
        "storage_options": {"endpoint_url": object_store["endpoint_url"]},
        "withheld": ["key", "secret", "token"],
    }


def test_users_and_signatures_in_urls_are_used_and_never_shown(web):
    seen = []
    web.answer = seen.append
    url = web.url.replace("//", "//me:passw0rd@")
    source = open_source(f"{url}/cube.npy?X-Amz-Signature=abcdef")
    source.read(0)
    assert all("?X-Amz-Signature=abcdef" in path for path in seen)
    assert source.spec() == {"kind": "npy", "path": f"{web.url}/cube.npy", "withheld": ["query", "user"]}
    web.close()
    with pytest.raises(SourceError) as caught:
        open_source(f"{url}/cube.npy?X-Amz-Signature=abcdef")
    shown = "".join(traceback.format_exception(caught.value))  # as a notebook keeps it
    assert "the server does not answer" in shown
    lines = [line for line in shown.splitlines() if "open_source(" not in line]
    assert not re.search("passw0rd|abcdef", "\n".join(lines))


def test_options_without_secrets_are_enough_to_open_a_source_again(object_store, bucket, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    options = {"client_kwargs": {"endpoint_url": object_store["endpoint_url"], "region_name": "us-east-1"}}
    source = open_source(f"{bucket[0]}/set.h5", storage_options=options, cache_gb=0.5)
    assert source.spec()["storage_options"] == options
    assert source.spec()["cache_gb"] == 0.5
    assert "withheld" not in source.spec()
    np.testing.assert_array_equal(source_from_spec(source.spec()).read(2), source.read(2))


def test_a_spec_without_its_credentials_says_what_to_give(guarded, object_store):
    spec = {
        "kind": "folder",
        "path": "s3://images/set/folder",
        "storage_options": {"endpoint_url": object_store["endpoint_url"], "key": "a", "secret": "b"},
        "withheld": ["key", "secret"],
    }
    with pytest.raises(
        SourceError, match=r"credentials or options \(key, secret\), which are not written down"
    ):
        source_from_spec(spec)


@pytest.mark.usefixtures("nobody")
def test_a_session_keeps_no_credentials_and_goes_on_when_they_are_given(make_session, tmp_path, bucket):
    def images():
        return open_source(f"{bucket[0]}/set.h5", storage_options=bucket[1])

    session = make_session(images(), labels={"0.fits": "anomaly", "1.fits": "normal"})
    session.close()
    written = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert any(b"s3://images/set/set.h5" in content for content in written)
    assert not any(b"tester" in content or b"not-so-secret" in content for content in written)
    with pytest.raises(
        SourceError, match=r"no credentials.*\(key, secret\), which are not written down. Give the"
    ):
        Session.open(tmp_path / "run")
    with Session.open(tmp_path / "run", source=images()) as again:
        assert again.labels.counts() == {"anomaly": 1, "normal": 1}


# ---- other processes ------------------------------------------------------------------------


def read_pickled(pickled):
    source = pickle.loads(pickled)
    return [source.read(i) for i in range(len(source))]


def test_a_new_process_reads_what_is_sent_to_it_with_its_credentials(bucket):
    sources = [
        open_source(f"{bucket[0]}/{path}", storage_options=bucket[1]) for path in ("set.h5", "v3.zarr")
    ]
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        found = list(executor.map(read_pickled, map(pickle.dumps, sources), timeout=120))
    for source, theirs in zip(sources, found, strict=True):
        for ours, other in zip(all_of(source), theirs, strict=True):
            np.testing.assert_array_equal(ours, other)


@pytest.mark.usefixtures("forgetful")
def test_h5py_never_waits_for_a_server(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_remote, "_PIECE", 1000)
    monkeypatch.setattr(blocks, "_BLOCK", 1000)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = np.arange(40 * 30 * 20, dtype="u2").reshape(40, 30, 20)
    is_stuck = []

    def take_lock():
        with h5py._objects.phil:
            pass

    def answer(path):
        # While the server has a question, another thread takes the lock of h5py, as one does that collects
        # garbage. It may be the one that brings the answer.
        other = threading.Thread(target=take_lock, daemon=True)
        other.start()
        other.join(5)
        is_stuck.append(other.is_alive())

    web = serve(tmp_path)
    web.answer = answer
    source = open_source(f"{web.url}/a.h5", cache_gb=0)
    assert source.read(7)[0, 0, 0] == 7 * 600
    assert len(is_stuck) > 3
    assert not any(is_stuck)


CHILD = """
import ctypes, sys
import amatch_widgets as am
source = am.open_source(sys.argv[1])
source.read(0)
# As if a module held it that outlives the interpreter.
for held in (source, source._handle):
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))
"""


def test_a_process_with_an_open_hdf5_file_ends_well(web):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, f"{web.url}/set.h5"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
