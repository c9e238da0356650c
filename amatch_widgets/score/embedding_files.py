"""The files of an `EmbeddingStore`, and where they lie.

A store is the folder ``<root>/<16 hexadecimal digits>/``; the digits are those of its key::

    key.json        what the vectors depend on
    projection.npz  how they were made from the features of the network
    vectors.f16     little-endian float16, one row per image, row after row
    state.u8        one byte per image: 0 missing, 1 done, 2 unreadable
    lock            held by whoever fills the store

What cannot be read is made anew rather than mourned: vectors can always be computed again.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from amatch_widgets.images.disk_cache import cache_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = [
    "DAMAGE",
    "DONE",
    "KEY",
    "LOCK",
    "MISSING",
    "PROJECTION",
    "STATE",
    "UNREADABLE",
    "VECTORS",
    "VECTOR_TYPE",
    "Contents",
    "canonical",
    "check_space",
    "default_roots",
    "make_room",
    "read",
    "restore",
    "write_at",
]

KEY, PROJECTION, VECTORS, STATE, LOCK = "key.json", "projection.npz", "vectors.f16", "state.u8", "lock"
MISSING, DONE, UNREADABLE = 0, 1, 2
VECTOR_TYPE = np.dtype("<f2")
_SIZES = "_sizes"  # dims and number of arrays, beside the caller's arrays in projection.npz

# All that json, numpy and zipfile raise on bytes that make no sense.
DAMAGE: tuple[type[Exception], ...] = (
    OSError, ValueError, LookupError, TypeError, EOFError, RuntimeError, ArithmeticError, MemoryError,
    struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


class Contents(NamedTuple):
    """What is in a store, but for its vectors.

    Parameters
    ----------
    state : ndarray of uint8, shape (n_images,)
        MISSING, DONE or UNREADABLE.
    projection : dict of str to ndarray, or None
        How the vectors are made; None before that is known.
    dims : int
        Numbers per vector; 0 before that is known.
    """

    state: NDArray[np.uint8]
    projection: dict[str, NDArray[Any]] | None
    dims: int

    @property
    def is_complete(self) -> bool:
        """Whether no image is missing."""
        return bool(self.state.min() != MISSING)


def default_roots(session_folder: Path) -> list[Path]:
    """Return where vectors are kept: in the user's cache, shared by all sessions, or else in the session.

    The environment variable AMATCH_CACHE names another cache than that of the system.
    """
    roots = [session_folder / "embeddings"]
    cache = cache_folder()
    return roots if cache is None else [cache / "amatch_widgets" / "embeddings", *roots]


def canonical(key: Mapping[str, Any]) -> str:
    """Return a key as JSON, the same for equal keys."""
    return json.dumps(dict(key), sort_keys=True, separators=(",", ":"), allow_nan=False)


def read(folder: Path, text: str, n_images: int) -> Contents:
    """Return what is in the store of a key in its canonical form; one of DAMAGE if it cannot be used."""
    try:
        is_same = canonical(json.loads((folder / KEY).read_text("utf-8"))) == text
    except DAMAGE as error:
        raise ValueError(f"{KEY} cannot be read") from error
    if not is_same:
        raise ValueError(f"{KEY} is of something else")
    state = np.fromfile(folder / STATE, np.uint8)
    if len(state) != n_images or state.max() > UNREADABLE:
        raise ValueError(f"{STATE} is not of {n_images} images")
    if not (folder / PROJECTION).exists():
        if (state == DONE).any():
            raise ValueError(f"{PROJECTION} is missing")
        return Contents(state, None, 0)
    try:
        with (folder / PROJECTION).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        dims, n_arrays = (int(size) for size in arrays.pop(_SIZES))
    except DAMAGE as error:
        raise ValueError(f"{PROJECTION} cannot be read") from error
    if len(arrays) != n_arrays:  # contents and names have checksums in a zip file, its directory has none
        raise ValueError(f"{PROJECTION} has {len(arrays)} arrays instead of {n_arrays}")
    found, wanted = (folder / VECTORS).stat().st_size, n_images * dims * VECTOR_TYPE.itemsize
    if dims < 1 or found != wanted:
        raise ValueError(f"{VECTORS} has {found} bytes instead of {wanted}")
    for array in arrays.values():
        array.setflags(write=False)
    return Contents(state, arrays, dims)


def restore(folder: Path, text: str, n_images: int) -> tuple[Contents, str]:
    """Return what is in a store, made anew if need be, and a notice for the user if that is a loss.

    The caller holds the lock.
    """
    try:
        return read(folder, text, n_images), ""
    except DAMAGE as error:
        # Without these two nothing is lost: the store is new, or was cut off at its beginning.
        is_loss = any((folder / name).exists() for name in (VECTORS, PROJECTION))
        notice = (
            f"The stored vectors of the images in {str(folder)!r} were damaged ({error}). "
            "They are made anew; labels and scores are not concerned."
        )
    for name in (KEY, STATE, PROJECTION, VECTORS):  # removed, not cut short: a reader may have it mapped
        (folder / name).unlink(missing_ok=True)
    state = np.zeros(n_images, np.uint8)
    _replace(folder / STATE, state.tobytes())
    _replace(folder / KEY, json.dumps(json.loads(text), indent=1).encode())
    return Contents(state, None, 0), notice if is_loss else ""


def make_room(folder: Path, projection: Mapping[str, NDArray[Any]], dims: int, n_images: int) -> None:
    """Write the projection, and a file of zeros for the vectors."""
    archive = io.BytesIO()
    arrays: dict[str, Any] = {_SIZES: np.array([dims, len(projection)], np.int64), **projection}
    np.savez(archive, **arrays)
    n_bytes = n_images * dims * VECTOR_TYPE.itemsize
    check_space(folder, n_bytes + len(archive.getbuffer()))
    (folder / VECTORS).unlink(missing_ok=True)  # left by a process that was killed just here
    with (folder / VECTORS).open("xb") as file:
        file.truncate(n_bytes)
    _replace(folder / PROJECTION, archive.getvalue())  # last: it makes the vectors count


def check_space(folder: Path, n_bytes: int) -> None:
    """Raise OSError (ENOSPC) if the disk of `folder` has less than `n_bytes` free."""
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise OSError(errno.ENOSPC, f"{n_bytes:,} bytes are needed and {free:,} are free")


def write_at(file: io.FileIO, offset: int, data: NDArray[np.uint8]) -> None:
    """Write all of `data` from byte `offset` on."""
    file.seek(offset)
    left = data.reshape(-1).data
    while left:  # one call may take less than all: 2 GB at most on Linux, or what the disk still holds
        left = left[file.write(left) :]


def _replace(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, and give it its own when it is on disk."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
