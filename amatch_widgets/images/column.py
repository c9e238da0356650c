"""The column of a Parquet file that holds images: which one it is, and how its rows become pixels."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.errors import SourceError
from amatch_widgets.images.array import channels_last, hwc, plain_pixels
from amatch_widgets.images.decode import UnreadableError, decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["ImageColumn", "as_shape", "find_column", "list_columns", "storage_type"]

PREFERRED = ("image", "images", "img")
SIZES = ("height", "width", "channels")
ALLOWED = (
    "encoded images (binary, or a struct with 'bytes' as of Hugging Face), lists of numbers, and "
    "fixed-shape tensors"
)
_LISTED = 20  # columns in a message
_TUPLE = re.compile(r"^\s*\((.*)\)\s*$")  # as Python writes a shape; JSON has brackets


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageColumn:
    """How to make an image of a row.

    Attributes
    ----------
    name : str
        The column.
    is_encoded : bool
        Whether a row is a JPEG, PNG, TIFF, FITS or .npy file; else it is numbers.
    shape : tuple of int, optional
        Of the numbers, where it is the same for all rows; two or three axes.
    order : tuple of int, optional
        The axes of `shape` that are height, width and channels; without it the shape says.
    sizes : tuple of str
        Columns with height, width and, as a third, channels, where each row has a shape of its own.
    leaves : tuple of str
        What has to be read of the file.
    """

    name: str
    is_encoded: bool
    shape: tuple[int, ...] | None = None
    order: tuple[int, ...] | None = None
    sizes: tuple[str, ...] = ()
    leaves: tuple[str, ...]

    @property
    def channels(self) -> int | None:
        """Channels of all images, where the shape tells."""
        if self.shape is None:
            return None
        if self.order is None:
            return hwc(self.shape)[2]
        return 1 if len(self.order) == 2 else self.shape[self.order[2]]  # noqa: PLR2004 - (H, W)

    def pixels(self, rows: pa.Table, row: int, min_side: int | None) -> NDArray[Any]:
        """Make an image of one row.

        Parameters
        ----------
        rows : pyarrow Table
            With the columns of `leaves`.
        row : int
            Which row of it.
        min_side : int, optional
            As for `ImageSource.read`.

        Returns
        -------
        ndarray of uint8, uint16 or float32, shape (H, W, C)
            Of its own memory: a view would keep all rows alive.

        Raises
        ------
        UnreadableError
            The row is null, no image, or of a wrong size.
        """
        value = rows.column(self.name)[row]
        if self.is_encoded:
            found = value.as_py()
            data = found["bytes"] if isinstance(found, dict) else found
            if data is None:
                raise UnreadableError("its row is null: no bytes of an image are stored there")
            return decode(io.BytesIO(data), min_side=min_side)
        if not value.is_valid:
            raise UnreadableError("its row is null: no pixels are stored there")
        numbers, nested = _flat(value)
        shape = self.shape or self._shape_of_row(rows, row) or nested or _square(len(numbers))
        if math.prod(shape) != len(numbers) or not len(numbers):
            raise UnreadableError(f"it has {len(numbers)} numbers, which do not fill the shape {shape}")
        image = np.array(numbers).reshape(shape)
        return plain_pixels(_in_order(image, self.order))

    def _shape_of_row(self, rows: pa.Table, row: int) -> tuple[int, ...] | None:
        found = tuple(rows.column(name)[row].as_py() for name in self.sizes)
        if not found:
            return None
        if not all(isinstance(n, int) and n > 0 for n in found):
            raise UnreadableError(f"its {' and '.join(self.sizes)} are {found}: no numbers above 0")
        return found


def find_column(schema: pa.Schema, column: str | None, shape: tuple[int, ...] | None) -> ImageColumn:
    """Find the column with the images, and how to read it.

    Parameters
    ----------
    schema : pyarrow Schema
        Of the file.
    column : str, optional
        The column; without it the one that fits, preferably ``image``, ``images`` or ``img``.
    shape : tuple of int, optional
        Of the numbers of an image, (H, W), (H, W, C) or (C, H, W).

    Raises
    ------
    SourceError
        There is no such column, or more than one; or a shape is missing, or does not fit.
    """
    types = {
        name: storage_type(schema.field(name).type) for name in schema.names if schema.names.count(name) == 1
    }
    kinds = {name: kind for name, found in types.items() if (kind := _kind(found)) is not None}
    if column is not None and column not in kinds:
        what = f"is of type {types[column]}" if column in types else "does not exist, or twice"
        raise SourceError(
            f"The column {column!r} {what}. Allowed are {ALLOWED}. The columns are {list_columns(schema)}."
        )
    name = column or _choose(kinds)
    if name is None:
        what = f"are {len(kinds)} columns that may be images" if kinds else "is no column of images"
        raise SourceError(
            f"There {what}. Allowed are {ALLOWED}. Name the column, column=...; "
            f"the columns are {list_columns(schema)}."
        )
    if kinds[name] == "numbers":
        return _of_numbers(schema, name, types[name], shape)
    if shape is not None:
        raise SourceError(
            f"shape= is for raw pixels; the column {name!r} holds encoded images, which know their own. "
            "Leave it out."
        )
    leaf = f"{name}.bytes" if kinds[name] == "struct" else name
    return ImageColumn(name=name, is_encoded=True, leaves=(leaf,))


def as_shape(shape: Iterable[int]) -> tuple[int, ...]:
    """Check a shape given by a user: two or three whole numbers above 0."""
    given = (shape,) if isinstance(shape, int) else tuple(shape)
    if len(given) not in (2, 3) or not all(isinstance(n, int | np.integer) and n > 0 for n in given):
        raise SourceError(
            f"shape={shape!r}: allowed is the shape of one image, (H, W) or (H, W, C), in pixels."
        )
    return tuple(int(n) for n in given)


def list_columns(schema: pa.Schema) -> str:
    """List the columns with their types, for a message."""
    listed = [f"{field.name!r} ({field.type})" for field in list(schema)[:_LISTED]]
    return ", ".join(listed) + (", ..." if len(schema) > _LISTED else "")


def storage_type(kind: Any) -> Any:
    """Return what an extension type or a dictionary is made of; a fixed-shape tensor stays."""
    import pyarrow as pa  # noqa: PLC0415 - import amatch_widgets must be quick

    while True:
        if isinstance(kind, pa.BaseExtensionType) and not isinstance(kind, pa.FixedShapeTensorType):
            kind = kind.storage_type
        elif pa.types.is_dictionary(kind):
            kind = kind.value_type
        else:
            return kind


def _kind(kind: Any) -> str | None:
    """Tell binary, Hugging Face's struct and numbers apart; None for all else."""
    import pyarrow as pa  # noqa: PLC0415 - as above

    if pa.types.is_struct(kind):
        inner = [field.type for field in kind if field.name == "bytes"]
        return "struct" if len(inner) == 1 and _kind(inner[0]) == "binary" else None
    if isinstance(kind, pa.FixedShapeTensorType):
        return "numbers"
    if str(kind).split("[")[0] in ("binary", "large_binary", "binary_view", "fixed_size_binary"):
        return "binary"
    depth = 0
    while _is_list(kind):
        kind, depth = kind.value_type, depth + 1
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return "numbers" if is_number and 1 <= depth <= 3 else None  # noqa: PLR2004 - (H, W, C)


def _is_list(kind: Any) -> bool:
    import pyarrow as pa  # noqa: PLC0415 - as above

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _choose(kinds: dict[str, str]) -> str | None:
    preferred = [name for wanted in PREFERRED for name in kinds if name.lower() == wanted]
    return next(iter(preferred or (kinds if len(kinds) == 1 else ())), None)


def _of_numbers(schema: pa.Schema, name: str, kind: Any, shape: tuple[int, ...] | None) -> ImageColumn:
    """Find out where the shape of raw pixels comes from."""
    import pyarrow as pa  # noqa: PLC0415 - as above

    order: tuple[int, ...] | None = None
    sizes: tuple[str, ...] = ()
    n: int | None = None
    if isinstance(kind, pa.FixedShapeTensorType):
        n = math.prod(kind.shape)
        if shape is None:
            shape, order = tuple(kind.shape), _tensor_order(kind)
    elif not _is_list(kind.value_type):
        n = kind.list_size if pa.types.is_fixed_size_list(kind) else None
        shape = shape or _declared_shape(schema, name)
        if shape is None:
            sizes = tuple(s for s in SIZES if s in schema.names and pa.types.is_integer(schema.field(s).type))
            sizes = sizes if sizes[:2] == SIZES[:2] else ()
        if shape is None and not sizes and n is not None:
            try:
                shape = _square(n)
            except UnreadableError as exc:
                raise SourceError(f"The column {name!r} has no shape: {exc}.") from exc
    if shape is not None and n is not None and math.prod(shape) != n:
        raise SourceError(
            f"The column {name!r} has {n} numbers in each row; the shape {shape} takes {math.prod(shape)}. "
            "Give the shape of one image, shape=(H, W, C)."
        )
    return ImageColumn(
        name=name, is_encoded=False, shape=shape, order=order, sizes=sizes, leaves=(name, *sizes)
    )


def _declared_shape(schema: pa.Schema, name: str) -> tuple[int, ...] | None:
    """Look for a shape in the metadata of the column, by Hugging Face, and of the file."""
    of_file = schema.metadata or {}
    try:
        features = json.loads(of_file.get(b"huggingface", b"{}"))["info"]["features"][name]["shape"]
    except (ValueError, KeyError, TypeError):
        features = None
    for found in ((schema.field(name).metadata or {}).get(b"shape"), features, of_file.get(b"shape")):
        try:
            shape = json.loads(_TUPLE.sub(r"[\1]", found.decode())) if isinstance(found, bytes) else found
        except (ValueError, RecursionError):
            continue
        if isinstance(shape, list | tuple) and len(shape) in (2, 3) and all(type(s) is int for s in shape):
            return tuple(shape)
    return None


def _tensor_order(kind: Any) -> tuple[int, ...]:
    """Return the axes of a tensor as it is stored that are height, width and channels."""
    initials = [str(axis)[:1].lower() for axis in kind.dim_names or ()]
    for wanted in ("hwc", "hw"):
        if sorted(initials) == sorted(wanted):
            return tuple(initials.index(axis) for axis in wanted)
    logical = tuple(kind.permutation or range(len(kind.shape)))
    shape = tuple(kind.shape[axis] for axis in logical)
    if len(shape) not in (2, 3):
        raise SourceError(
            f"The column holds tensors of shape {shape}; one image is (H, W), (H, W, C) or (C, H, W)."
        )
    if len(shape) == 3 and shape[0] < shape[2]:  # noqa: PLR2004 - (C, H, W)
        return (*logical[1:], logical[0])
    return logical


def _in_order(image: NDArray[Any], order: Sequence[int] | None) -> NDArray[Any]:
    return channels_last(image) if order is None else np.atleast_3d(image.transpose(order))


def _flat(value: Any) -> tuple[NDArray[Any], tuple[int, ...] | None]:
    """Return the numbers of one row, and their shape where lists within lists tell it."""
    while hasattr(value, "value") and not hasattr(value, "values"):  # of an extension type
        value = value.value
    array = value.values
    nested = [len(array)]
    while _is_list(array.type):
        inner = array.flatten()
        lengths = np.diff(array.offsets) if hasattr(array, "offsets") else [array.type.list_size]
        if array.null_count or len(set(np.asarray(lengths).tolist())) > 1:
            raise UnreadableError("its rows of pixels are not all of one length")
        nested.append(len(inner) // max(len(array), 1))
        array = inner
    numbers = array.to_numpy(zero_copy_only=False)  # what is null among numbers becomes NaN
    if numbers.dtype.kind not in "biuf":
        raise UnreadableError("some of its pixels are null")
    return numbers, tuple(nested) if len(nested) > 1 else None


def _square(n: int) -> tuple[int, int]:
    side = math.isqrt(n)
    if side * side == n and n:
        return side, side
    hint = ""
    third = math.isqrt(n // 3)
    if n and 3 * third * third == n:
        hint = (
            f", e.g. ({third}, {third}, 3), or (3, {third}, {third}) where the bands are one after the other"
        )
    raise UnreadableError(
        f"{n} numbers make no square of one channel; give the shape of one image, shape=(H, W, C){hint}"
    )
