"""Shortlists as Parquet, VOTable and FITS: read back by the formats' own libraries, whatever is in them."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.io.votable import parse
from astropy.io.votable.ucd import check_ucd
from astropy.table import Table

from amatch_widgets.errors import MissingExtraError
from amatch_widgets.session.provenance import Provenance
from amatch_widgets.session.tables import _MEANING, to_csv, to_fits, to_parquet, to_votable

NASTY = [
    "a/0017.png",
    "]]><TD>&amp;'\"",
    "ü\U0001f600",
    " blank before, after ",
    "two\nlines\tand\ttabs",
    "\x00\x0b\x1b\x7f\ufffe\ufdd0",
    "back\\slash\\xfc",
    "",
    "\r",
    "&#13;&lt;",
    "\u2028\x85",
    "x" * 3000,
]
PROVENANCE = Provenance(
    software="amatch-widgets 0.1.0",
    date="2026-07-30T12:00:00+00:00",
    session="rün\x1b' & <b>",
    source="\udcff" + "cutouts" * 30,
    fingerprint="f00",
    n_images=10_000_000,
    ranked_by="both",
    ranking="Ranked by the instant tier, from 3 anomalies, 5 normals. " * 4,
    model="ab" * 16,
)


@pytest.fixture
def table():
    return nasty(NASTY)


def nasty(texts):
    n = len(texts)
    return pd.DataFrame(
        {
            "id": texts,
            "score": np.linspace(1, 0, n, dtype=np.float32),
            "rank": pd.array(range(1, n + 1), dtype="Int64"),
            "label": ["anomaly", *[""] * (n - 1)][:n],
            "tags": texts[::-1],
            "note": texts,
            "starred": [k % 2 == 0 for k in range(n)],
            "ra": np.linspace(0, 359, n),
            "dec": [np.nan] * n,
            "labelled_by": texts,
            "labelled_at": ["2026-07-30T12:00:00.000+00:00"] * n,
            "rank_instant": pd.array(range(1, n + 1), dtype="Int64"),
            "rank_deep": pd.array([0] * n, dtype="Int64"),
            "model": ["ab" * 16] * n,
        }
    )


def test_parquet_holds_every_text_as_it_is_and_says_what_it_is_of(table):
    found = pq.read_table(io.BytesIO(to_parquet(table, PROVENANCE)))
    pd.testing.assert_frame_equal(found.to_pandas(), table)
    assert json.loads(found.schema.metadata[b"amatch_widgets"]) == PROVENANCE.to_dict()


def test_csv_holds_the_table_and_nothing_else(table):
    found = pd.read_csv(io.BytesIO(to_csv(table, PROVENANCE)), dtype={"id": str}, keep_default_na=False)
    assert list(found.columns) == list(table.columns)
    assert found["id"].tolist() == found["note"].tolist() == NASTY


def test_a_votable_holds_the_numbers_and_the_texts(table):
    file = parse(io.BytesIO(to_votable(table, PROVENANCE)), verify="exception")
    found = file.get_first_table().to_table()
    for name in ("score", "rank", "starred", "ra", "dec"):
        np.testing.assert_array_equal(found[name], table[name].to_numpy(found[name].dtype))
    texts = [
        *NASTY[:3],
        "\\x20blank before, after\\x20",
        NASTY[4],
        "\\x00\\x0b\\x1b\x7f\\ufffe\ufdd0",
        *NASTY[6:8],
        "\\x0d",
        "&#13;&lt;",
        "\\u2028\\x85",  # blanks to Python, which cuts them off
        NASTY[-1],
    ]
    assert list(found["id"]) == list(found["note"]) == list(found["labelled_by"]) == texts
    assert list(found["tags"]) == texts[::-1]


def test_a_votable_says_what_its_columns_and_itself_are(table):
    file = parse(io.BytesIO(to_votable(table, PROVENANCE)), verify="exception")
    facts = {info.name: info.value for info in file.resources[0].infos}
    plain = {"session": "rün\\x1b' & <b>", "source": "\\udcff" + "cutouts" * 30, "n_images": "10000000"}
    ranking = PROVENANCE.ranking[:-1] + "\\x20"
    assert facts == PROVENANCE.to_dict() | plain | {"ranking": ranking}
    fields = {field.name: field for field in file.get_first_table().fields}
    assert (fields["ra"].unit, fields["ra"].ucd, fields["ra"].ref) == ("deg", "pos.eq.ra;meta.main", "icrs")
    assert (fields["dec"].unit, fields["dec"].ucd, fields["dec"].ref) == (
        "deg",
        "pos.eq.dec;meta.main",
        "icrs",
    )
    assert file.resources[0].coordinate_systems[0].system == "ICRS"


def test_all_descriptors_are_words_of_the_virtual_observatory():
    assert all(check_ucd(ucd, check_controlled_vocabulary=True) for _, ucd, _ in _MEANING.values())


def test_a_fits_table_holds_the_numbers_and_texts_that_python_reads_back(table):
    found = Table.read(io.BytesIO(to_fits(table, PROVENANCE)), format="fits")
    for name in ("score", "rank", "starred", "ra", "dec"):
        np.testing.assert_array_equal(found[name], table[name].to_numpy(found[name].dtype))
    assert found["ra"].unit == "deg"
    for name in ("id", "tags", "note", "labelled_by"):
        texts = found[name].filled("").tolist()  # astropy masks what is empty
        assert [text.encode("ascii").decode("unicode_escape") for text in texts] == table[name].tolist()
    assert found["id"].tolist()[2] == r"\xfc\U0001f600"


def test_the_header_of_a_fits_table_says_what_it_is_of(table):
    with fits.open(io.BytesIO(to_fits(table, PROVENANCE))) as file:
        file.verify("exception")
        header = file["SHORTLIST"].header
    assert header["CREATOR"] == "amatch-widgets 0.1.0"
    assert (header["SESSION"], header["NIMAGES"]) == ("r\\xfcn\\x1b' & <b>", 10_000_000)
    assert (header["RANKEDBY"], header["MODEL"], header["RADESYS"]) == ("both", "ab" * 16, "ICRS")
    assert header["RANKING"] == PROVENANCE.ranking[:-1] + "\\x20"
    assert header["IMAGES"] == "\\udcff" + "cutouts" * 30


@pytest.mark.parametrize("write", [to_csv, to_parquet, to_votable, to_fits])
def test_a_table_without_rows_is_a_table_too(write, tmp_path):
    data = write(nasty([]), PROVENANCE)
    readers = {
        to_csv: pd.read_csv,
        to_parquet: pd.read_parquet,
        to_votable: lambda file: parse(file).get_first_table().to_table(),
        to_fits: lambda file: Table.read(file, format="fits"),
    }
    found = readers[write](io.BytesIO(data))
    assert len(found) == 0
    assert list(found.columns) == list(nasty([]).columns)


@pytest.mark.parametrize("write", [to_votable, to_fits])
def test_without_astropy_the_message_is_the_line_to_type(write, table, monkeypatch):
    for module in ("astropy", "astropy.table"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'amatch-widgets\[fits\]'"):
        write(table, PROVENANCE)
