"""Arrays in Zarr stores, read with care; to be imported late: it needs the library zarr."""

from __future__ import annotations

import os
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr
from zarr.abc.store import Store
from zarr.storage import LocalStore, WrapperStore, ZipStore

from amatch_widgets.errors import SourceError
from amatch_widgets.images.decode import UnreadableError
from amatch_widgets.images.remote import Remote, why_unreachable
from amatch_widgets.images.unreadable import in_words
from amatch_widgets.images.zarr_remote import RemoteStore, RemoteZip

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

    from amatch_widgets.images.place import Place

__all__ = ["ZarrArray", "arrays_beside", "open_array"]

_DOCUMENTS = ("zarr.json", ".zarray")
_BLOSC_HEADER = struct.Struct("<4B3I")  # versions, flags, type size; bytes decoded, of a block, compressed
_MOST_DECODED = 2**31 - 1  # as Blosc allows
_DEPTH = 3  # of groups that are looked at to find the images


class ZarrArray:
    """One array of a store, open in this process.

    Thread safety: it has nothing that changes; zarr reads in threads of its own.

    Parameters
    ----------
    array : zarr.Array
    store : str or Remote
        Folder or zip file in which it lies.
    """

    def __init__(self, array: zarr.Array[Any], store: Place) -> None:
        self.array = array
        self._witness: str | None = None
        if isinstance(store, Remote):  # it looks after that itself
            return
        documents = [os.path.join(store, array.path, name) for name in _DOCUMENTS]  # noqa: PTH118 - quicker
        # While this is there, so is the store: a chunk that is missing is then meant to be so.
        self._witness = next((path for path in documents if os.path.exists(path)), store)  # noqa: PTH110 - as above

    def rows(self, start: int, stop: int) -> Any:
        """Read images; raise UnreadableError for anything."""
        try:
            values = self.array[start:stop]
            if self._witness is not None:
                os.stat(self._witness)  # noqa: PTH116 - as above
        except FileNotFoundError as exc:
            raise UnreadableError("the store is gone since it was opened") from exc
        except MemoryError as exc:
            raise UnreadableError("there is not enough memory to read its chunk") from exc
        except OSError as exc:
            if exc.errno is not None:  # the disk or the network, not the chunk
                raise UnreadableError(in_words(exc)) from exc
            raise UnreadableError(f"its chunk is damaged or cut off ({exc})") from exc
        # Codecs meet damaged chunks with RuntimeError, ValueError, zlib.error, SystemError, ...; one bad
        # chunk must not stop a run.
        except Exception as exc:
            raise UnreadableError(f"its chunk is damaged or cut off ({exc})") from exc
        return values


def open_array(path: Place, dataset: str | None) -> ZarrArray:
    """Open the array of images of a store.

    Parameters
    ----------
    path : str or Remote
        Folder or zip file.
    dataset : str, optional
        Name of the array; default the one that fits, or that named ``images``.

    Raises
    ------
    SourceError
        It is no store, or which array is meant cannot be told.
    """
    store = _CheckedStore(_store_of(path))
    # What zarr warns of at opening (files of another kind in the store, texts in v3) is no matter here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            node = zarr.open(store, mode="r")
            array = _choose(node, path, dataset)
            store.watch(array)
        except SourceError:
            raise
        except OSError as exc:
            if exc.errno is None or isinstance(exc, FileNotFoundError):
                raise _no_store(path, exc) from exc
            if isinstance(path, Remote):
                raise why_unreachable(path, exc) from exc
            raise SourceError(f"{path!r} cannot be opened: {in_words(exc)}.") from exc
        # A store that is damaged meets zarr with KeyError, JSONDecodeError, TypeError, BadZipFile, ...
        except Exception as exc:
            raise _no_store(path, exc) from exc
    return ZarrArray(array, path)


def arrays_beside(array: zarr.Array[Any]) -> dict[str, zarr.Array[Any]]:
    """Return the other arrays of the group in which an array lies, by their names."""
    if not array.path:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        group = zarr.open_group(array.store, path=array.path.rpartition("/")[0], mode="r")
        beside = {name: item for name, item in group.arrays() if item.path != array.path}
    for item in beside.values():
        if isinstance(item.store, _CheckedStore):
            item.store.watch(item)
    return beside


def _store_of(path: Place) -> Store:
    if not isinstance(path, Remote):
        return ZipStore(path, mode="r") if Path(path).is_file() else LocalStore(path, read_only=True)
    return RemoteZip(path) if path.suffix.lower() == ".zip" else RemoteStore(path)


def _no_store(path: Place, exc: Exception) -> SourceError:
    return SourceError(
        f"{path!r} cannot be opened as a Zarr store: {type(exc).__name__}: {exc}. It needs a zarr.json, "
        ".zarray or .zgroup at its top. It may be incomplete, or need a codec that is not installed."
    )


class _CheckedStore(WrapperStore[Store]):
    """A store that refuses chunks that were cut off where zarr would make pixels of them.

    numcodecs believes the header of a Blosc chunk: of one that was cut off it reads beyond its end, and gives
    what lies there in memory. An empty shard is read as if all of its chunks were missing on purpose.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._watched: tuple[str, ...] = ()

    def watch(self, array: zarr.Array[Any]) -> None:
        """Look at the chunks of an array from now on, if they are Blosc; shards have checksums."""
        codecs = {type(codec).__name__ for codec in array.compressors}
        if codecs & {"Blosc", "BloscCodec"} and array.shards is None:
            self._watched += (f"{array.path}/" if array.path else "",)
        if isinstance(self._store, RemoteStore):
            name = "zarr.json" if array.metadata.zarr_format == 3 else ".zarray"  # noqa: PLR2004 - as called
            document = f"{array.path}/{name}" if array.path else name
            self._store.settle(array.path, document, is_sharded=array.shards is not None)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return what is stored under a key; see `zarr.abc.store.Store.get`."""
        buffer = await self._store.get(key, prototype, byte_range)
        if buffer is not None and not _is_document(key):
            if not len(buffer):
                raise ValueError("the file of the chunk is empty (0 bytes)")
            if key.startswith(self._watched):
                _check_blosc(buffer)
        return buffer


def _is_document(key: str) -> bool:
    name = key.rpartition("/")[2]
    return name == "zarr.json" or name.startswith(".z")


def _check_blosc(buffer: Buffer) -> None:
    head = buffer[: _BLOSC_HEADER.size].to_bytes()
    if len(head) < _BLOSC_HEADER.size:
        raise ValueError(f"{len(buffer)} bytes are no Blosc chunk")
    *_, decoded, _, compressed = _BLOSC_HEADER.unpack(head)
    if compressed != len(buffer) or decoded > _MOST_DECODED:
        raise ValueError(f"the chunk has {len(buffer)} bytes and should have {compressed}")


def _choose(node: zarr.Array[Any] | zarr.Group, path: Place, dataset: str | None) -> zarr.Array[Any]:
    if isinstance(node, zarr.Array):
        if dataset is not None:
            raise SourceError(f"{path!r} is one array, without names. Leave dataset= out.")
        return node
    found = {
        name: item for name, item in node.members(max_depth=_DEPTH) if isinstance(item, zarr.Array)
    }  # depth counts groups below the first
    if dataset is not None:
        wanted = found.get(dataset.strip("/"))
        if wanted is None:
            raise SourceError(f"There is no array {dataset!r} in {path!r}. Found are {_listed(found)}.")
        return wanted
    named = [name for name in found if name.rpartition("/")[2] == "images"]
    fitting = named if len(named) == 1 else [name for name in found if _is_stack(found[name])]
    if len(fitting) == 1:
        return found[fitting[0]]
    if not found:
        raise SourceError(f"{path!r} holds no array: there is no image in it. Check what wrote it.")
    which = "None of them holds images" if not fitting else "Several of them may hold the images"
    raise SourceError(
        f"{path!r} holds {_listed(found)}. {which}: say which by dataset='NAME'. Wanted are numbers "
        "(N, H, W), (N, H, W, C) or (N, C, H, W)."
    )


def _is_stack(array: zarr.Array[Any]) -> bool:
    return array.ndim in (3, 4) and array.dtype.kind in "biuf"


def _listed(arrays: dict[str, zarr.Array[Any]]) -> str:
    some = [f"{name!r} {array.shape} {array.dtype}" for name, array in list(arrays.items())[:8]]
    more = f" and {len(arrays) - 8} more" if len(arrays) > 8 else ""  # noqa: PLR2004 - as shown
    return (", ".join(some) or "no arrays") + more
