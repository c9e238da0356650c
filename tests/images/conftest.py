"""The same images in all formats on a disk, in memory, on a web server and in an object store."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections import Counter
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from astropy.io import fits
from PIL import Image

IMAGES = np.random.default_rng(11).integers(1, 256, (6, 48, 45, 3), np.uint8)


def write_all(root):
    """Write a folder of images in each format; return the path of each below the folder."""
    for i, image in enumerate(IMAGES):
        path = root / "folder" / f"a {i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    np.save(root / "folder" / "grey.npy", IMAGES[0, :, :, 0])
    (root / "folder" / "readme.txt").write_text("none of them")
    with h5py.File(root / "set.h5", "w") as file:
        file.create_dataset("images", data=IMAGES, chunks=(2, 48, 45, 3))
        file.create_dataset("filenames", data=[f"{i}.fits" for i in range(6)])
    for version in (2, 3):
        group = zarr.open_group(root / f"v{version}.zarr", mode="w", zarr_format=version)
        group.create_array("images", data=IMAGES, chunks=(2, 48, 45, 3))
        group.create_array("ids", data=np.arange(10, 16))
    with zarr.storage.ZipStore(root / "packed.zarr.zip", mode="w") as packed:
        group = zarr.open_group(packed, mode="w")
        group.create_array("images", data=IMAGES, chunks=(1, 48, 45, 3), shards=(2, 48, 45, 3))
        group.create_array("ids", data=np.arange(20, 26))
    shards = {"chunks": (1, 48, 45, 3), "shards": (2, 48, 45, 3)}
    for k in range(2):
        store = zarr.open_group(root / "stores" / f"batch_{k}" / "images.zarr", mode="w")
        store.create_array("images", data=IMAGES[3 * k : 3 * k + 3], **shards)
        names = pa.table({"filename": [f"{k}{i}.fits" for i in range(3)]})
        pq.write_table(names, root / "stores" / f"batch_{k}" / "images_metadata.parquet")
    encoded = [(root / "folder" / f"a {i % 2}" / f"{i}.png").read_bytes() for i in range(6)]
    (root / "parquet" / "sub").mkdir(parents=True)
    for k, name in enumerate(("a.parquet", "sub/b.parquet")):
        table = pa.table({"image": encoded[3 * k : 3 * k + 3], "id": [f"p{k}{i}" for i in range(3)]})
        pq.write_table(table, root / "parquet" / name, row_group_size=2)
    np.save(root / "cube.npy", IMAGES)
    fits.PrimaryHDU(np.moveaxis(IMAGES, 3, 1).astype(">f4")).writeto(root / "cube.fits")
    return {
        "folder": "folder",
        "hdf5": "set.h5",
        "zarr 2": "v2.zarr",
        "zarr 3": "v3.zarr",
        "zip": "packed.zarr.zip",
        "stores": "stores",
        "parquet": "parquet/a.parquet",
        "parquets": "parquet",
        "fits": "cube.fits",
        "npy": "cube.npy",
    }


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """Give a folder, and where in it each format is."""
    root = tmp_path_factory.mktemp("written")
    return root, write_all(root)


class WebServer:
    """A web server for a folder that sends parts of files; its requests can be counted, and made to fail."""

    def __init__(self, root):
        self.requests = Counter()
        self.answer = lambda path: None
        outer = self

        class Handler(SimpleHTTPRequestHandler):
            def send_head(self):
                outer.requests[self.command, self.path] += 1
                status = outer.answer(self.path)
                if status is not None:
                    return self.send_error(status)
                path = Path(self.translate_path(self.path))
                wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
                if wanted is None or not path.is_file():
                    return super().send_head()
                start, end = int(wanted[1]), int(wanted[2])
                with path.open("rb") as file:
                    file.seek(start)
                    part = file.read(end + 1 - start)
                self.send_response(206)
                self.send_header("Content-Length", str(len(part)))
                self.send_header("Content-Range", f"bytes {start}-{end}/{path.stat().st_size}")
                self.end_headers()
                with contextlib.suppress(BrokenPipeError):
                    self.wfile.write(part)
                return None

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), lambda *args: Handler(*args, directory=os.fspath(root))
        )
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def serve():
    """Serve folders; all servers are gone in the end."""
    with contextlib.ExitStack() as stack:

        def serve(root):
            server = WebServer(root)
            stack.callback(server.close)
            return server

        yield serve


@pytest.fixture
def web(serve, written):
    """Give a web server for the written folder."""
    return serve(written[0])


@pytest.fixture(scope="session")
def bucket(object_store, written):
    """Give the URL of a bucket with the written folder, and the options to reach it."""
    import s3fs  # noqa: PLC0415 - as above

    files = s3fs.S3FileSystem(**object_store)
    files.mkdir("images")
    files.put(f"{written[0]}/", "images/set/", recursive=True)
    return "s3://images/set", object_store


@pytest.fixture(scope="session")
def memory(written):
    """Give the URL of the written folder in the memory of this process."""
    files = fsspec.filesystem("memory")
    files.put(f"{written[0]}/", "/images/", recursive=True)
    yield "memory://images"
    files.rm("/images", recursive=True)
