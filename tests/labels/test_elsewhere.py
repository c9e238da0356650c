"""Labels and stars as AnomalyMatch and Astronomaly write them."""

from __future__ import annotations

import pandas as pd
import pytest

from amatch_widgets.errors import LabelError
from amatch_widgets.labels.stars import read_star_list
from amatch_widgets.labels.table import read_label_csv

FOLDER = ["a/1.png", "a/2.png", "b/1.png", "Abell2390_VIS_2.jpeg", "0007.v2.tif"]


@pytest.fixture
def file(tmp_path):
    def write(text, name="table.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8", newline="")
        return path

    return write


# ---- AnomalyMatch -----------------------------------------------------------------------------


def test_labels_of_version_1_have_file_names_and_any_columns(file):
    text = (
        'filename,label,my_custom_column\nAbell2390_VIS_2.jpeg,anomaly,"I for one"\n/old/a/1.png,normal,x\n'
    )
    found = read_label_csv(file(text), FOLDER)
    assert found.labels == {"Abell2390_VIS_2.jpeg": "anomaly", "a/1.png": "normal"}
    assert found.extra["my_custom_column"].tolist() == ["I for one", "x"]


def test_removed_is_no_label_in_the_table_of_a_session_with_iterations(file):
    text = "filename,label,iteration\na/1.png,anomaly,-1\na/2.png,normal,0\na/1.png,removed,2\n"
    found = read_label_csv(file(text), FOLDER)
    assert found.labels == {"a/2.png": "normal", "a/1.png": None}
    assert found.n_removed == 1


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        ("batch_001__image_000042", "batch_001/042"),
        ("batch_001__image_1234567", "batch_001/1234567"),
        ("the__image_000001__image_000007", "the__image_000001/7"),
        ("alone__image_000003", "03"),
        ("batch_001/042", "batch_001/042"),
    ],
)
def test_labels_of_version_2_number_the_images_of_a_zarr_store(file, name, image_id):
    ids = ["batch_001/042", "batch_001/1234567", "the__image_000001/7", "03", "42"]
    found = read_label_csv(file(f"id,label\n{name},anomaly\n"), ids, store="alone")
    assert found.labels == {image_id: "anomaly"}


@pytest.mark.parametrize("name", ["other__image_000003", "alone__image_3", "batch_001__image_000043"])
def test_a_number_in_another_store_is_no_image_of_this_one(file, name):
    found = read_label_csv(
        file(f"id,label\n{name},anomaly\n42,normal\n"), ["batch_001/42", "3", "42"], store="alone"
    )
    assert found.labels == {"42": "normal"}
    assert found.unknown_ids == (name,)


def test_an_id_that_only_looks_like_a_number_in_a_store_is_itself(file):
    ids = ["alone__image_000003", "3"]
    assert read_label_csv(file("id,label\nalone__image_000003,anomaly\n"), ids, store="alone").labels == {
        "alone__image_000003": "anomaly"
    }


# ---- Astronomaly ------------------------------------------------------------------------------


def astronomaly(tmp_path, **columns):
    path = tmp_path / "ml_scores.csv"
    pd.DataFrame(
        {"score": [4.9, 0.1, 3.5, 2.0], **columns}, index=["1", "2", "Abell2390_VIS_2", "0007.v2"]
    ).to_csv(path)
    return path


def test_its_numbers_become_labels_from_where_the_user_says(tmp_path):
    path = astronomaly(tmp_path, human_label=[-1, 0, 3, 5])
    found = read_label_csv(path, FOLDER, anomaly_from=4)
    assert found.labels == {"a/2.png": "normal", "Abell2390_VIS_2.jpeg": "normal", "0007.v2.tif": "anomaly"}
    assert list(found.extra.columns) == ["score", "human_label"]
    assert read_label_csv(path, FOLDER, anomaly_from=3).labels["Abell2390_VIS_2.jpeg"] == "anomaly"


def test_its_ids_are_file_names_without_endings_which_may_fit_several(tmp_path):
    found = read_label_csv(astronomaly(tmp_path, human_label=[5, -1, -1, 0]), FOLDER, anomaly_from=4)
    assert found.labels == {"0007.v2.tif": "normal"}
    assert found.ambiguous == ("1",)
    assert "the first is '1'" in found.notice


def test_an_id_that_is_there_goes_before_a_file_of_that_name(tmp_path):
    found = read_label_csv(
        astronomaly(tmp_path, human_label=[5, -1, -1, -1]), ["1", "x/1.png"], anomaly_from=4
    )
    assert found.labels == {"1": "anomaly"}


def test_without_a_border_nothing_is_guessed(tmp_path):
    path = astronomaly(tmp_path, human_label=[5, 1, 2, 3])
    with pytest.raises(LabelError, match=r"human_label from 0 to 5. Say .* e\.g\. anomaly_from=4"):
        read_label_csv(path, FOLDER)


def test_a_table_without_human_labels_says_so(tmp_path):
    with pytest.raises(LabelError, match="nothing was labelled yet"):
        read_label_csv(astronomaly(tmp_path), FOLDER, anomaly_from=4)


@pytest.mark.parametrize("value", ["", "many", "nan"])
def test_a_human_label_that_is_no_number_names_the_row(tmp_path, value):
    with pytest.raises(LabelError, match=rf"Row 3 .* has the human_label {value!r}"):
        read_label_csv(astronomaly(tmp_path, human_label=["5", value, "-1", "-1.0"]), FOLDER, anomaly_from=4)


def test_the_border_is_for_no_other_table(file):
    with pytest.raises(LabelError, match="anomaly_from= is for the human_label of Astronomaly"):
        read_label_csv(file("id,label\na/1.png,anomaly\n"), FOLDER, anomaly_from=4)


# ---- stars ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "filename,timestamp\n/data/a/1.png,2026-07-30 12:00:00\nAbell2390_VIS_2.jpeg,2026-07-30 12:00:01\n",
        "id\na/1.png\nAbell2390_VIS_2.jpeg\n",
        '"ID";"why"\n"a/1.png";"so"\n"Abell2390_VIS_2.jpeg";\n',
        "a/1.png\nAbell2390_VIS_2.jpeg",
        "\ufeffa/1.png\r\n\r\n./Abell2390_VIS_2.jpeg\r\na/1.png\r\n",
    ],
    ids=["AnomalyMatch", "one column", "spreadsheet", "text", "Windows text"],
)
def test_a_list_of_stars_is_a_table_or_a_name_on_each_line(file, text):
    found = read_star_list(file(text), FOLDER)
    assert found.image_ids == ("a/1.png", "Abell2390_VIS_2.jpeg")
    assert found.notice == ""
    assert repr(found) == "StarImport(2 starred)"


def test_names_that_fit_none_or_several_are_told(file):
    found = read_star_list(file("1.png\na/2.png\nx.png\ny.png\n"), FOLDER)
    assert found.image_ids == ("a/2.png",)
    assert (found.unknown_ids, found.ambiguous) == (("x.png", "y.png"), ("1.png",))
    assert repr(found) == "StarImport(1 starred, 2 unknown, 1 ambiguous)"
    assert found.notice == (
        "2 of its ids fit no image, the first is 'x.png'; "
        "1 of its ids fits several images, the first is '1.png'"
    )


def test_a_plain_list_may_hold_any_name_on_a_line(file):
    names = ["a,b;c.png", "x\u2028y.png", '"quoted".png', "# no comment.png"]
    assert read_star_list(file("\n".join(names), "stars.txt"), names).image_ids == tuple(names)


@pytest.mark.parametrize(
    ("text", "word"),
    [("x.png\ny.png\n", "No row of .* fits an image"), ("", "is empty"), ("\0", "not a text file")],
)
def test_a_list_that_makes_no_sense_is_refused(file, text, word):
    with pytest.raises(LabelError, match=word):
        read_star_list(file(text), FOLDER)


def test_a_list_that_is_not_there_is_told(tmp_path):
    with pytest.raises(LabelError, match="cannot be read: No such file"):
        read_star_list(tmp_path / "none.csv", FOLDER)
