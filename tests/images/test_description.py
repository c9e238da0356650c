"""What sources know of an image beside its pixels: cheap, on one line each, and never an error."""

from __future__ import annotations

import gzip
import pickle
import types

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from PIL import Image

from amatch_widgets.errors import ImageReadError
from amatch_widgets.images import row as row_module
from amatch_widgets.images.array import ArraySource
from amatch_widgets.images.catalogue import CatalogueSource
from amatch_widgets.images.description import MOST_FACTS, describe
from amatch_widgets.images.joined import JoinedSource, Subset
from amatch_widgets.images.source import open_source

HOSTILE = "<img src=x onerror='window.hit = 1'>{{ 7 * 7 }}"
PIXELS = np.zeros((8, 9), np.float32)


def telling(facts):
    """A source that tells this, or raises it."""

    def find(_):
        if isinstance(facts, BaseException):
            raise facts
        return facts

    return types.SimpleNamespace(describe=find)


def test_a_source_need_not_know_anything():
    assert describe(ArraySource(np.zeros((2, 8, 8), np.uint8)), 0) == {}


@pytest.mark.parametrize(
    "facts",
    [
        None,
        7,
        "text",
        ["a", "b"],
        KeyError("x"),
        ImageReadError("i", "gone"),
        RecursionError(),
        MemoryError(),
    ],
)
def test_whatever_a_source_does_the_view_gets_a_dict(facts):
    assert describe(telling(facts), 0) == {}


def test_hostile_texts_stay_as_they_are_on_one_line_and_no_longer_than_can_be_shown():
    told = describe(
        telling(
            {HOSTILE: HOSTILE, "a\nb\x00": "one\r\n\ttwo\x1b[31m", "half": "\udcff!", "long": "x" * 10**6}
        ),
        0,
    )
    assert told[HOSTILE] == HOSTILE
    assert told["a b"] == "one two [31m"
    assert told["half"] == "\N{REPLACEMENT CHARACTER}!"
    assert len(told["long"]) == 300
    assert told["long"].endswith("x…")
    assert describe(telling({3: 4.5, "none": None, "empty": "  ", "": "x"}), 0) == {"3": "4.5"}
    assert len(describe(telling({f"c{k}": "x" for k in range(10_000)}), 0)) == MOST_FACTS


class _Rude:
    def __str__(self):
        raise ValueError("no text")


def test_a_value_that_cannot_be_written_raises_nothing():
    assert describe(telling({"rude": _Rude()}), 0) == {}


def header(**cards):
    made = fits.Header()
    made.update({key.replace("_", "-"): value for key, value in cards.items()})
    return made


def test_a_folder_tells_name_and_date_of_a_file_and_cards_of_its_fits_header(tmp_path):
    cards = header(
        OBJECT=HOSTILE, FILTER="VIS", EXPTIME=565.5, DATE_OBS="2026-01-02", BUNIT="nJy", SECRET="x"
    )
    hdus = [fits.PrimaryHDU(header=header(TELESCOP="Euclid", FILTER="wrong")), fits.ImageHDU(PIXELS, cards)]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    (tmp_path / "b.fits.gz").write_bytes(gzip.compress((tmp_path / "a.fits").read_bytes()))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "c.jpg")
    source = open_source(tmp_path)
    told = [describe(source, k) for k in range(3)]
    date = told[0].pop("File date")
    assert date.endswith(" UTC")
    assert told[0] == {
        "File name": "a.fits",
        "OBJECT": HOSTILE,
        "TELESCOP": "Euclid",
        "FILTER": "VIS",
        "EXPTIME": "565.5",
        "DATE-OBS": "2026-01-02",
        "BUNIT": "nJy",
    }
    assert told[1]["EXPTIME"] == "565.5"
    assert told[2].keys() == {"File name", "File date"}
    (tmp_path / "a.fits").write_bytes(b"SIMPLE  = junk")
    (tmp_path / "c.jpg").unlink()
    assert [describe(source, k) for k in (0, 2)] == [{}, {}]


def test_a_fits_file_of_many_images_tells_the_cards_of_each(tmp_path):
    images = [fits.ImageHDU(PIXELS, header(OBJECT=f"o{k}"), name=f"n{k}") for k in range(3)]
    fits.HDUList([fits.PrimaryHDU(header=header(FILTER="r")), *images]).writeto(tmp_path / "many.fits")
    source = open_source(tmp_path / "many.fits")
    assert [describe(source, k) for k in range(3)] == [{"OBJECT": f"o{k}", "FILTER": "r"} for k in range(3)]
    (tmp_path / "many.fits").unlink()
    assert describe(source, 0) == {}


def test_a_damaged_card_is_left_out(tmp_path):
    fits.PrimaryHDU(np.zeros((2, 3, 8, 8), "f4")[:, 0], header(OBJECT="x", EXPTIME=1.5)).writeto(
        tmp_path / "a.fits"
    )
    content = (tmp_path / "a.fits").read_bytes()
    at = content.index(b"EXPTIME =")
    (tmp_path / "a.fits").write_bytes(content[: at + 10] + b"'\xff\xfe(((".ljust(20) + content[at + 30 :])
    assert describe(open_source(tmp_path / "a.fits", hdu=0), 1).get("OBJECT") == "x"


def test_parquet_tells_the_scalar_columns_of_the_row_and_reads_no_image(tmp_path):
    table = pa.table(
        {
            "image": [np.full(16, k, np.uint8).tolist() for k in range(6)],
            "id": [f"i{k}" for k in range(6)],
            "mag": pa.array([20.123456789012 + k for k in range(6)], pa.float64()),
            "note": [HOSTILE, None, "", "x", "y", "z"],
            "seen": pa.array([None, True, False, True, True, True]),
            "blob": pa.array([b"123"] * 6),
            "nested": [{"a": 1}] * 6,
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=4)
    source = open_source(tmp_path / "a.parquet")
    assert describe(source, 0) == {"id": "i0", "mag": "20.1234568", "note": HOSTILE}
    assert describe(source, 5) == {"id": "i5", "mag": "25.1234568", "note": "z", "seen": "True"}
    (tmp_path / "a.parquet").unlink()
    assert describe(source, 0) == {}


def test_columns_that_take_long_to_read_are_left_out(tmp_path, monkeypatch):
    table = pa.table(
        {"image": [[1] * 16] * 4, "long": ["x" * 5000 + str(k) for k in range(4)], "mag": [1, 2, 3, 4]}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    source = open_source(tmp_path / "a.parquet")
    monkeypatch.setattr(row_module, "_MOST_READ", 1000)
    assert describe(source, 2) == {"mag": "3"}


# ---- a catalogue ----------------------------------------------------------------------------------------


OBJECTS = pd.DataFrame(
    {
        "object_id": ["0017", "0018", "0019"],
        "x": [5.0, 6.25, 7.5],
        "y": [4.0, 4.0, np.nan],
        "tile": "t.fits",
        "mag_r": [20.5, np.nan, 18.0],
        "n": [1, 2, 3],
        "comment": [HOSTILE, "", "fine"],
    }
)


def as_csv(table, path):
    table.to_csv(path / "objects.csv", index=False)
    return path / "objects.csv"


def as_parquet(table, path):
    table.to_parquet(path / "objects.parquet")
    return path / "objects.parquet"


def as_fits(table, path):
    Table.from_pandas(table).write(path / "objects.fits", overwrite=True)
    return path / "objects.fits"


def as_votable(table, path):
    Table.from_pandas(table).write(path / "objects.vot", format="votable", overwrite=True)
    return path / "objects.vot"


def as_it_is(table, _):
    return table


def as_arrow(table, _):
    return pa.Table.from_pandas(table)


def as_astropy(table, _):
    made = Table.from_pandas(table)
    made["mag_r"] = MaskedColumn([20.5, 0.0, 18.0], mask=[False, True, False])
    return made


@pytest.fixture
def tiles(tmp_path):
    (tmp_path / "tiles").mkdir()
    fits.PrimaryHDU(np.ones((20, 20), np.float32)).writeto(tmp_path / "tiles" / "t.fits")
    return tmp_path / "tiles"


@pytest.mark.parametrize(
    "make",
    [as_csv, as_parquet, as_fits, as_votable, as_it_is, as_arrow, as_astropy],
    ids=lambda f: f.__name__,
)
def test_a_catalogue_tells_the_other_columns_of_the_row(tiles, tmp_path, make):
    source = CatalogueSource(make(OBJECTS, tmp_path), tiles=tiles, size=4)
    assert describe(source, 0) == {"tile": "t.fits", "mag_r": "20.5", "n": "1", "comment": HOSTILE}
    told = describe(source, 1)
    assert told == {"tile": "t.fits", "n": "2"}
    assert describe(source, 2)["comment"] == "fine"


def test_a_table_in_memory_stays_behind_when_the_source_is_sent_away(tiles):
    source = CatalogueSource(OBJECTS, tiles=tiles, size=4)
    assert describe(pickle.loads(pickle.dumps(source)), 0) == {}


@pytest.mark.parametrize("make", [as_csv, as_parquet, as_fits], ids=lambda f: f.__name__)
def test_of_a_table_that_has_changed_nothing_is_told(tiles, tmp_path, make):
    path = make(OBJECTS, tmp_path)
    source = CatalogueSource(path, tiles=tiles, size=4)
    make(OBJECTS.iloc[::-1].assign(y=4.0), tmp_path)
    assert [describe(source, k) for k in (0, 2)] == [{}, {}]
    make(OBJECTS.assign(object_id=["a", "b", "c"]), tmp_path)
    assert describe(source, 0) == {}
    make(OBJECTS.head(1), tmp_path)
    assert describe(source, 1) == {}
    path.write_bytes(b"junk")
    assert describe(source, 0) == {}
    path.unlink()
    assert describe(source, 0) == {}


def test_a_frame_sorted_by_its_owner_tells_nothing_wrong(tiles):
    frame = OBJECTS.copy()
    source = CatalogueSource(frame, tiles=tiles, size=4)
    frame[:] = frame.iloc[::-1].to_numpy()
    assert describe(source, 0) == {}


def test_a_very_large_csv_is_not_read_for_one_row(tiles, tmp_path, monkeypatch):
    source = CatalogueSource(as_csv(OBJECTS, tmp_path), tiles=tiles, size=4)
    monkeypatch.setattr(row_module, "_MOST_BYTES", 10)
    assert describe(source, 0) == {}


# ---- a Zarr store, and sources of sources -----------------------------------------------------------------


def test_a_zarr_store_tells_the_row_of_the_table_beside_it(tmp_path):
    for name in ("a", "b"):
        array = zarr.create_array(tmp_path / f"{name}.zarr", shape=(3, 8, 8), dtype="u1", chunks=(1, 8, 8))
        array[:] = 1
        ids = [f"{name}{k}" for k in range(3)]
        pq.write_table(
            pa.table({"source_id": ids, "z": [0.5, 1.5, 2.5]}), tmp_path / f"{name}_metadata.parquet"
        )
    source = open_source(tmp_path)
    assert [source.ids[4], describe(source, 4)] == ["b/b1", {"z": "1.5"}]
    pq.write_table(pa.table({"source_id": list("xyz"), "z": [9.0] * 3}), tmp_path / "b_metadata.parquet")
    assert describe(source, 4) == {}


def test_joined_sources_and_subsets_pass_on_what_theirs_know(tmp_path):
    for name in ("north", "south"):
        (tmp_path / name).mkdir()
        fits.PrimaryHDU(PIXELS, header(OBJECT=name)).writeto(tmp_path / name / "a.fits")
    joined = JoinedSource({"N": tmp_path / "north", "S": tmp_path / "south"})
    told = describe(Subset(joined, [1]), 0)
    assert (told["Source"], told["OBJECT"]) == ("S", "south")
