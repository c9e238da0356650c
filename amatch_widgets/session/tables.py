"""A shortlist as a file of each format: CSV, Parquet, VOTable, FITS."""

from __future__ import annotations

import importlib
import io
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd
    from numpy.typing import NDArray

    from amatch_widgets.session.provenance import Provenance

__all__ = ["csv_of", "to_csv", "to_fits", "to_parquet", "to_votable"]

# What each column is: unit, Unified Content Descriptor of the Virtual Observatory, and in words.
_MEANING = {
    "id": ("", "meta.id;meta.main", "identifier of the image in its source"),
    "score": ("", "stat.value", "the higher the likelier an anomaly, in [0, 1]; not a probability"),
    "rank": ("", "meta.number", "1 = highest score of all images; 0 = no score"),
    "label": ("", "meta.code.class", "anomaly, normal, or empty"),
    "tags": ("", "meta.note", "words, joined by ;"),
    "note": ("", "meta.note", ""),
    "starred": ("", "meta.code", ""),
    "ra": ("deg", "pos.eq.ra;meta.main", "right ascension, ICRS"),
    "dec": ("deg", "pos.eq.dec;meta.main", "declination, ICRS"),
    "labelled_by": ("", "meta.id.assoc", "who gave the label"),
    "labelled_at": ("", "time", "when the label was given, ISO 8601, UTC"),
    "rank_instant": ("", "meta.number", "rank by the labels and the embeddings alone; 0 = no score"),
    "rank_deep": ("", "meta.number", "rank by the trained model alone; 0 = no score"),
    "model": ("", "meta.id.assoc", "digest of the weights that ranked, or empty"),
}
# FITS keywords have eight characters at most; CREATOR and DATE are the standard's own.
_KEYWORDS = {
    "software": "CREATOR",
    "date": "DATE",
    "session": "SESSION",
    "source": "IMAGES",
    "fingerprint": "FINGERPR",
    "n_images": "NIMAGES",
    "ranked_by": "RANKEDBY",
    "ranking": "RANKING",
    "model": "MODEL",
}
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_AT_THE_ENDS = re.compile(r"^\s|\s$")  # which readers of both formats cut off


def to_csv(table: pd.DataFrame, _provenance: Provenance) -> bytes:
    """Write CSV (UTF-8): the table and nothing else."""
    return csv_of(table)


def csv_of(table: pd.DataFrame) -> bytes:
    """Write any table as CSV (UTF-8)."""
    # RFC 4180; the line end also has texts with a "\r" quoted
    return table.to_csv(index=False, lineterminator="\r\n").encode()


def to_parquet(table: pd.DataFrame, provenance: Provenance) -> bytes:
    """Write Parquet; the metadata ``amatch_widgets`` of its schema is the provenance as JSON."""
    import pyarrow as pa  # noqa: PLC0415 (as pandas: only tables need it)
    import pyarrow.parquet as pq  # noqa: PLC0415

    rows = pa.Table.from_pandas(table, preserve_index=False)
    facts = {"amatch_widgets": json.dumps(provenance.to_dict())}
    buffer = io.BytesIO()
    pq.write_table(rows.replace_schema_metadata({**(rows.schema.metadata or {}), **facts}), buffer)
    return buffer.getvalue()


def to_votable(table: pd.DataFrame, provenance: Provenance) -> bytes:
    r"""Write a VOTable; the provenance is in its INFO elements.

    Control characters, and blanks at the ends of a text, are written as Python writes them: ``\x0b``.
    """
    columns, votable = _astropy("table"), _astropy("io.votable")
    rows = columns.Table()
    for name, values in _columns(table, _for_xml):
        unit, ucd, meaning = _MEANING[name]
        if values.dtype == object and not len(values):  # astropy looks at the first to know the type
            values = values.astype("U1")  # noqa: PLW2901
        rows[name] = columns.Column(values, unit=unit, description=meaning or None, meta={"ucd": ucd})
    file = votable.from_table(rows)
    resource = file.resources[0]
    resource.coordinate_systems.append(votable.tree.CooSys(ID="icrs", system="ICRS"))
    for field in resource.tables[0].fields:
        if field.name in {"ra", "dec"}:
            field.ref = "icrs"
    for name, value in provenance.to_dict().items():
        resource.infos.append(votable.tree.Info(name=name, value=_for_xml(str(value))))
    buffer = io.BytesIO()
    file.to_xml(buffer)
    return buffer.getvalue()


def to_fits(table: pd.DataFrame, provenance: Provenance) -> bytes:
    r"""Write a FITS binary table; the provenance is in the cards of its header.

    FITS holds ASCII alone: other characters, control characters, and blanks at the ends of a text are
    written as Python writes them, ``\xfc``, and so is the backslash.
    """
    columns, fits = _astropy("table"), _astropy("io.fits")
    rows = columns.Table()
    for name, values in _columns(table, _for_fits):
        # as wide as the longest, and at least 1
        rows[name] = np.array([*values, "-"], "S")[:-1] if values.dtype == object else values
        rows[name].unit = _MEANING[name][0] or None
    unit = fits.table_to_hdu(rows)
    unit.header["EXTNAME"], unit.header["RADESYS"] = "SHORTLIST", "ICRS"
    for name, value in provenance.to_dict().items():
        unit.header[_KEYWORDS[name]] = _for_fits(value) if isinstance(value, str) else value
    unit.header.add_comment("Characters that are not ASCII, and the backslash, are as in Python")
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), unit]).writeto(buffer)
    return buffer.getvalue()


def _columns(table: pd.DataFrame, encode: Callable[[str], str]) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the columns as arrays of numbers and booleans, or of texts as a format can hold them."""
    for name in table:
        values = table[name]
        if values.dtype.kind in "bf":
            yield str(name), values.to_numpy()
        elif values.dtype.kind in "iu":
            yield str(name), values.to_numpy(np.int64)
        else:
            texts = np.empty(len(values), object)
            texts[:] = [encode(text) for text in values]
            yield str(name), texts


def _for_xml(text: str) -> str:
    return _AT_THE_ENDS.sub(_as_python, _NOT_XML.sub(_as_python, text))


def _for_fits(text: str) -> str:
    return _AT_THE_ENDS.sub(_as_python, text.encode("unicode_escape").decode())


def _as_python(found: re.Match[str]) -> str:
    """Write a character as Python writes it, the blank too."""
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004 (two hex digits)


def _astropy(module: str) -> Any:
    try:
        return importlib.import_module(f"astropy.{module}")
    except ImportError as error:
        raise MissingExtraError(
            "FITS and VOTable files are written with astropy, which is not installed. "
            "Type: pip install 'amatch-widgets[fits]'"
        ) from error
