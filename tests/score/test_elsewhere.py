"""Scores of other programs: read from their files, and put beside the images they are of."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import zarr

from amatch_widgets.errors import ScoreError
from amatch_widgets.images.packed import IdIndex, PackedIds
from amatch_widgets.images.source import index_of, open_source
from amatch_widgets.labels.match import Matcher
from amatch_widgets.score.elsewhere import ScoreFile, place_scores, read_scores

IDS = ["a/1.png", "a/2.png", "b/1.png", "0007", "7"]
INDEX = {image_id: k for k, image_id in enumerate(IDS)}


@pytest.fixture
def file(tmp_path):
    def write(text, name="scores.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def of(names, scores, **more):
    return ScoreFile(pa.array(names, pa.large_string()), np.array(scores, np.float64), "'x.csv'", **more)


# ---- tables -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "filename,score\na/1.png,0.25\n0007,1.0\n",
        "score;extra;ID\r\n0.25;x;a/1.png\r\n1;;0007\r\n",
        '\ufeff"id"\t"Score"\n"a/1.png"\t" 0.25 "\n0007\t1e0\n',
    ],
    ids=["AnomalyMatch", "spreadsheet", "tabs"],
)
def test_a_table_of_names_and_scores_is_read(file, text):
    found = read_scores(file(text))
    assert found.names.to_pylist() == ["a/1.png", "0007"]
    assert found.scores.tolist() == [0.25, 1.0]
    assert (found.origin, found.without_endings) == ("'scores.csv'", False)


def test_names_may_hold_separators_quotes_and_line_ends(file):
    names = ['a,"b"\n.png', "ü;\t.png"]
    path = file("")
    pd.DataFrame({"id": names, "score": [0.5, 0.75]}).to_csv(path, index=False)
    assert read_scores(path).names.to_pylist() == names


def test_the_table_of_astronomaly_has_names_without_endings_in_a_column_without_a_name(tmp_path):
    path = tmp_path / "ml_scores.csv"
    table = pd.DataFrame(
        {"score": [4.5, 0.0], "trained_score": [1.5, 3.5], "human_label": [-1, 5]}, index=["2", "0007"]
    )
    table.to_csv(path)
    found = read_scores(path)
    assert (found.names.to_pylist(), found.scores.tolist()) == (["2", "0007"], [1.5, 3.5])
    assert (found.origin, found.without_endings) == ("'ml_scores.csv' (Astronomaly)", True)
    assert read_scores(path, column="score").scores.tolist() == [4.5, 0.0]
    table[["score"]].to_csv(path)
    assert read_scores(path).scores.tolist() == [4.5, 0.0]


def test_a_score_that_is_empty_or_not_finite_is_none(file):
    found = read_scores(file("id,score\na,\nb,nan\nc,inf\nd,0.5\n"))
    np.testing.assert_array_equal(found.scores, [np.nan, np.nan, np.nan, 0.5])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "id,score\na,0.5\nb,high\n",
            "Row 3 of 'scores.csv' has 'high' in the column 'score', which is no number",
        ),
        ("name,score\na,1\n", r"has no column 'id' \(or 'filename'\). .* names the columns 'name', 'score'"),
        ("id,probability\na,1\n", "has no column 'score'. .* with column="),
        ("", r"has no column 'id' \(or 'filename'\) and no column 'score'. .* names the columns nothing"),
        ("id,score\na,0.5,9\n", "cannot be read as a table: .*2 columns, got 3"),
        (b"id,score\n\xff\xfe,0.5\n", "is no table of text"),
        (b"id,score\n" + b"a,0.5\n" * 20_000 + b"\xff,0.5\n", "cannot be read as a table: .*UTF8"),
    ],
    ids=["word", "no id", "no score", "empty", "wide", "no text", "no text further down"],
)
def test_what_is_no_table_of_scores_says_why(file, text, words):
    with pytest.raises(ScoreError, match=words):
        read_scores(file(text))


def test_a_column_that_is_not_there_and_a_file_that_is_not_there(file, tmp_path):
    with pytest.raises(ScoreError, match="has no column 'p_anomaly'"):
        read_scores(file("id,score\na,1\n"), column="p_anomaly")
    for path in (tmp_path / "none.csv", tmp_path, tmp_path / "\0"):
        with pytest.raises(ScoreError, match="cannot be read"):
            read_scores(path)


# ---- beside the images ------------------------------------------------------------------------


def test_scores_come_in_the_order_of_the_images_and_the_rest_is_told():
    names = ["7", "/data/a/1.png", "1.png", "x.png", "7", "a/2.png"]
    found, scores = place_scores(of(names, [0.1, 0.2, 0.3, 0.4, 0.5, np.nan]), INDEX)
    np.testing.assert_array_equal(scores, np.array([0.2, np.nan, np.nan, np.nan, 0.5], np.float32))
    assert scores.dtype == np.float32
    assert (found.n_scored, found.n_images, found.n_repeated) == (2, 5, 1)
    assert (found.unknown_ids, found.ambiguous, found.is_by_rank) == (("x.png",), ("1.png",), False)
    assert repr(found) == "ScoreImport(2 of 5 images, 1 unknown, 1 ambiguous, 1 given more than once)"
    assert "the first is 'x.png'" in found.notice


def test_numbers_beyond_0_and_1_keep_their_order_alone():
    found, scores = place_scores(of(IDS[:4], [-3.0, 5.0, 5.0, 0.5]), INDEX)
    np.testing.assert_allclose(scores, [0.125, 0.75, 0.75, 0.375, np.nan])
    assert found.is_by_rank
    assert repr(found) == "ScoreImport(4 of 5 images, by rank)"


@pytest.mark.parametrize(
    ("given", "expected"), [([0.0, 0.25, 1.0], [1.0, 0.75, 0.0]), ([-0.5, 0.0, 0.1], [5 / 6, 0.5, 1 / 6])]
)
def test_the_lowest_may_be_the_likeliest(given, expected):
    _, scores = place_scores(of(IDS[:3], given), INDEX, lowest_first=True)
    np.testing.assert_allclose(scores[:3], expected, rtol=1e-6)


def test_names_without_endings_fit_where_one_image_has_them():
    found, scores = place_scores(of(["1", "2", "7"], [0.1, 0.2, 0.3], without_endings=True), INDEX)
    np.testing.assert_allclose(scores, [np.nan, 0.2, np.nan, np.nan, 0.3])
    assert found.ambiguous == ("1",)


@pytest.mark.parametrize(
    ("names", "scores", "words"),
    [
        (
            ["x", "y"],
            [0.5, 0.5],
            r"No score of 'x\.csv' is of an image here. It names 'x', 'y'; the 5 images are named 'a/1",
        ),
        (["7"], [np.nan], r"'x\.csv' holds no score"),
        ([], [], "holds no score"),
    ],
)
def test_a_file_of_other_images_is_refused(names, scores, words):
    with pytest.raises(ScoreError, match=words):
        place_scores(of(names, scores), INDEX)


def every_way(name):
    return [
        name,
        f" {name}",
        f"./{name}",
        f"/data/{name}",
        f"C:\\data\\{name}",
        f"/a/b/{name}",
        name.rpartition("/")[2],
    ]


@pytest.mark.parametrize(
    "ids", [IDS, ["1.png", "2.png", "0007"], ["s/03", "s/00", "t__image_000001/1234567", "003"]]
)
def test_many_names_at_once_mean_what_each_means_by_itself(ids):
    numbered = [
        "s__image_000003",
        "s__image_3",
        "s__image_000000",
        "t__image_000001__image_1234567",
        "x__image_000003",
    ]
    names = [way for image_id in ids for way in every_way(image_id)] + numbered
    packed = PackedIds(pa.array(ids, pa.large_string()))
    for index in ({i: k for k, i in enumerate(ids)}, IdIndex(packed)):
        matcher = Matcher(ids, store="x")
        for name in names:
            fits = matcher.find(name)
            file = of([name, ids[0]], [0.25, np.nan])
            if len(fits) != 1:
                with pytest.raises(ScoreError):
                    place_scores(file, index, store="x")
                continue
            if fits[0] == ids[0]:
                file = of([ids[0], name], [np.nan, 0.25])
            _, scores = place_scores(file, index, store="x")
            assert np.flatnonzero(np.isfinite(scores)).tolist() == [ids.index(fits[0])], name


def test_many_names_with_folders_that_the_ids_lack_take_seconds(tmp_path):
    n = 200_000
    ids = [f"tile_{k % 50:03d}/{k:07d}.png" for k in range(n)]
    index = IdIndex(PackedIds(pa.array(ids, pa.large_string())))
    file = of([f"/old/place/{i}" for i in ids], np.linspace(0, 1, n))
    started = time.perf_counter()
    found, scores = place_scores(file, index)
    assert time.perf_counter() - started < 20  # one by one it took 50 s and more
    assert found.n_scored == n
    assert scores[-1] == 1


def test_the_numbers_of_anomalymatch_are_those_of_the_images_in_real_stores(tmp_path):
    for batch, n in (("batch_001", 12), ("batch_002", 3)):
        group = zarr.open_group(tmp_path / batch / "images.zarr", mode="w")
        group.create_array("images", data=np.zeros((n, 4, 4, 3), np.uint8))
    folder = open_source(tmp_path)
    names = [f"batch_001__image_{k:06d}" for k in range(12)] + [f"batch_002__image_{k:06d}" for k in range(3)]
    _, scores = place_scores(of(names, np.arange(15) / 16), index_of(folder), store=folder.name)
    np.testing.assert_array_equal(scores, np.arange(15, dtype=np.float32) / 16)
    alone = open_source(tmp_path / "batch_001" / "images.zarr")
    found, scores = place_scores(of(names, np.arange(15) / 16), index_of(alone), store=alone.name)
    np.testing.assert_array_equal(scores, np.arange(12, dtype=np.float32) / 16)
    assert found.unknown_ids == tuple(names[12:])
