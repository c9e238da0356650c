from __future__ import annotations

import codecs

import pytest

from amatch_widgets.errors import LabelError, WorkspaceError
from amatch_widgets.labels import Label, LabelStore
from amatch_widgets.labels.table import read_label_csv, write_label_csv

IDS = ["a/1.png", "a/2.png", "b/1.png", "0007", "7", "top.png"]
HOSTILE = [
    "line\nbreak.png",
    "return\r.png",
    "<img src=x onerror=alert(1)>.png",
    "{{ 1 + 1 }}.png",
    'it\'s "quoted", twice.png',
    "back\\slash.png",
    "not-utf8-\udce9.png",
    "\U0001f600 \u2028.png",
    " spaces .png",
    "=cmd()|1",
    "a;b\tc.png",
    "x" * 5000,
]


@pytest.fixture
def table(tmp_path):
    """Write a table and return its path."""

    def write(text, *, encoding="utf-8"):
        path = tmp_path / "labels.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return path

    return write


def _refused(path, ids=IDS):
    with pytest.raises(LabelError) as caught:
        read_label_csv(path, ids)
    message = str(caught.value)
    assert str(path) in message
    return message


# ---- what is read ---------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["id", "filename", "ID", " Filename "])
def test_a_table_of_ids_and_labels_is_read(table, column):
    got = read_label_csv(table(f"{column},label\na/1.png,anomaly\na/2.png,normal\n"), IDS)
    assert got.labels == {"a/1.png": "anomaly", "a/2.png": "normal"}
    assert (got.unknown_ids, got.ambiguous, got.duplicates, got.n_removed) == ((), (), (), 0)


def test_labels_are_read_in_any_case_and_removed_means_none(table):
    got = read_label_csv(table("id,label\na/1.png,Anomaly\na/2.png, NORMAL \nb/1.png,Removed\n"), IDS)
    assert got.labels == {"a/1.png": "anomaly", "a/2.png": "normal", "b/1.png": None}
    assert got.n_removed == 1


def test_leading_zeros_stay(table):
    got = read_label_csv(table("id,label\n0007,anomaly\n7,normal\n"), IDS)
    assert got.labels == {"0007": "anomaly", "7": "normal"}


def test_the_last_row_wins_and_the_image_is_listed_as_a_duplicate(table):
    got = read_label_csv(table("id,label,n\na/1.png,anomaly,1\na/2.png,normal,2\na/1.png,normal,3\n"), IDS)
    assert got.labels == {"a/2.png": "normal", "a/1.png": "normal"}
    assert got.duplicates == ("a/1.png",)
    assert got.extra.loc["a/1.png", "n"] == "3"


def test_a_label_that_is_removed_further_down_is_removed(table):
    got = read_label_csv(table("id,label\na/1.png,anomaly\na/1.png,removed\n"), IDS)
    assert (got.labels, got.n_removed, got.duplicates) == ({"a/1.png": None}, 1, ("a/1.png",))


def test_unknown_ids_are_listed_once_and_do_not_stop_the_others(table):
    got = read_label_csv(table("id,label\nx.png,anomaly\na/1.png,anomaly\ny.png,normal\nx.png,normal\n"), IDS)
    assert got.labels == {"a/1.png": "anomaly"}
    assert got.unknown_ids == ("x.png", "y.png")


def test_other_columns_are_kept_as_text_by_id(table):
    got = read_label_csv(
        table("ra,id,label,class,z\n1.50,a/1.png,anomaly,merger,007\n2,zz,normal,,\n3,a/2.png,normal,,nan\n"),
        IDS,
    )
    assert list(got.extra.columns) == ["ra", "class", "z"]
    assert list(got.extra.index) == list(got.labels) == ["a/1.png", "a/2.png"]
    assert got.extra.loc["a/1.png"].tolist() == ["1.50", "merger", "007"]
    assert got.extra.loc["a/2.png"].tolist() == ["3", "", "nan"]


def test_id_goes_before_filename_which_is_then_an_extra_column(table):
    got = read_label_csv(table("filename,id,label\nsomething,a/1.png,anomaly\n"), IDS)
    assert got.labels == {"a/1.png": "anomaly"}
    assert list(got.extra.columns) == ["filename"]


def test_a_table_without_rows_holds_no_labels(table):
    got = read_label_csv(table("id,label,note\n"), IDS)
    assert got.labels == {}
    assert list(got.extra.columns) == ["note"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_commas_semicolons_and_tabs_separate(table, separator):
    text = 'id,label,note\na/1.png,anomaly,"1,5; or so"\n'.replace(",", separator, 2)
    text = text.replace("png,anomaly,", f"png{separator}anomaly{separator}")
    got = read_label_csv(table(text), IDS)
    assert got.labels == {"a/1.png": "anomaly"}
    assert got.extra["note"].tolist() == ["1,5; or so"]


@pytest.mark.parametrize(
    "data",
    [
        codecs.BOM_UTF8 + b"id,label\na/1.png,anomaly\n",
        b"id,label\r\na/1.png,anomaly\r\n",
        b"id,label\ra/1.png,anomaly\r",
        b"\r\nid,label\n\n\na/1.png,anomaly\n,\n\n",
        b"id,label\na/1.png,anomaly",
        "id\tlabel\r\na/1.png\tanomaly\r\n".encode("utf-16"),
        b'"id","label"\n"a/1.png","anomaly"\n',
        b"id,label\na/1.png,anomaly,,\n",
    ],
    ids=[
        "bom",
        "windows",
        "old mac",
        "blank rows",
        "no last line end",
        "utf-16",
        "quoted",
        "trailing commas",
    ],
)
def test_what_editors_and_spreadsheets_make_of_a_table_is_understood(table, data):
    assert read_label_csv(table(data), IDS).labels == {"a/1.png": "anomaly"}


def test_the_import_says_in_one_line_what_it_holds(table):
    got = read_label_csv(table("id,label\n1.png,normal\nx,normal\n7,anomaly\n7,anomaly\n0007,removed\n"), IDS)
    assert repr(got) == (
        "LabelImport(1 anomaly, 0 normal, 1 removed, 1 unknown, 1 ambiguous, 1 given more than once)"
    )


# ---- which image a name means ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        ("a/1.png", "a/1.png"),
        ("./a/1.png", "a/1.png"),
        ("a\\1.png", "a/1.png"),
        ("/data/cutouts/a/1.png", "a/1.png"),
        ("C:\\data\\cutouts\\a\\1.png", "a/1.png"),
        ("cutouts/a/2.png", "a/2.png"),
        ("2.png", "a/2.png"),
        (" 2.png ", "a/2.png"),
        ("/data/top.png", "top.png"),
    ],
)
def test_paths_and_bare_names_are_understood(table, name, image_id):
    assert read_label_csv(table(f"filename,label\n{name},anomaly\n"), IDS).labels == {image_id: "anomaly"}


def test_a_bare_name_that_fits_two_images_is_listed_as_ambiguous(table):
    got = read_label_csv(table("id,label\n1.png,anomaly\na/2.png,normal\n"), IDS)
    assert got.labels == {"a/2.png": "normal"}
    assert got.ambiguous == ("1.png",)
    assert got.unknown_ids == ()


def test_a_path_into_another_folder_is_another_image(table):
    got = read_label_csv(
        table("id,label\nc/2.png,anomaly\n/data/elsewhere/2.png,anomaly\na/1.png,normal\n"), IDS
    )
    assert got.labels == {"a/1.png": "normal"}
    assert got.unknown_ids == ("c/2.png", "/data/elsewhere/2.png")


def test_a_path_that_fits_only_by_its_last_part_is_ambiguous_if_others_are_named_alike(table):
    ids = ["1.png", "a/1.png", "z.png"]
    got = read_label_csv(table("id,label\n/data/b/1.png,anomaly\n/data/a/1.png,normal\n1.png,normal\n"), ids)
    assert got.labels == {"a/1.png": "normal", "1.png": "normal"}
    assert got.ambiguous == ("/data/b/1.png",)


def test_two_names_of_one_image_are_duplicates(table):
    got = read_label_csv(table("id,label\n/data/a/1.png,anomaly\na/1.png,normal\n"), IDS)
    assert (got.labels, got.duplicates) == ({"a/1.png": "normal"}, ("a/1.png",))


@pytest.mark.parametrize("ids", [set(IDS), dict.fromkeys(IDS), tuple(IDS), dict.fromkeys(IDS).keys()])
def test_ids_may_be_any_collection(table, ids):
    assert len(read_label_csv(table("id,label\n2.png,anomaly\n7,normal\n"), ids).labels) == 2


# ---- what is refused ------------------------------------------------------------------------


def test_a_missing_file_is_an_error(tmp_path):
    assert "cannot be read: No such file" in _refused(tmp_path / "none.csv")


def test_a_folder_is_an_error(tmp_path):
    assert "cannot be read" in _refused(tmp_path)


@pytest.mark.parametrize(
    "data", [b"", b" \n\n", codecs.BOM_UTF8, codecs.BOM_UTF8 + b"\n", codecs.BOM_UTF16_LE]
)
def test_an_empty_file_is_an_error(table, data):
    assert "is empty. It needs the columns id,label" in _refused(table(data))


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"PK\x03\x04\x14\0\x06\0"])
def test_a_file_that_is_no_text_is_an_error(table, data):
    assert "not a text file" in _refused(table(data))


def test_half_a_utf_16_character_is_an_error(table):
    assert "not UTF-16 text" in _refused(table(b"\xff\xfei\0d\0,"))


def test_text_in_another_encoding_is_an_error_that_names_the_line(table):
    message = _refused(table("id,label\na/1.png,anomaly\ncafé.png,normal\n", encoding="latin-1"))
    assert "not UTF-8 text: byte 0xe9 in line 3" in message
    assert "Save" in message


@pytest.mark.parametrize(
    ("header", "missing"),
    [
        ("name,label", "no column 'id' (or 'filename'). Its first row names the columns 'name', 'label'"),
        ("id,class", "no column 'label'. Its first row names the columns 'id', 'class'"),
        ("a,b", "no column 'id' (or 'filename') and no column 'label'"),
        ("a/1.png,anomaly", "A label table starts with the row: id,label"),
        ("one,two,three,four,five,six,seven", "'five', and 2 more"),
    ],
)
def test_missing_columns_are_named_with_those_that_are_there(table, header, missing):
    assert missing in _refused(table(f"{header}\na/1.png,anomaly\n"))


@pytest.mark.parametrize("header", ["id,label,label", "id,label,ID"])
def test_a_column_that_stands_there_twice_is_an_error(table, header):
    assert "2 columns named" in _refused(table(f"{header}\na/1.png,anomaly,x\n"))


def test_unknown_labels_are_named_with_their_rows_and_what_is_allowed(table):
    message = _refused(table("id,label\na/1.png,anomaly\n\na/2.png,anomly\nb/1.png,galaxy\n7,\n"))
    assert "row 4 has 'anomly' (did you mean 'anomaly'?); row 5 has 'galaxy'; row 6 has '' (empty)" in message
    assert "'anomaly', 'normal' and 'removed'" in message


def test_a_label_is_checked_even_if_its_image_is_unknown(table):
    assert "row 3 has '1'" in _refused(table("id,label\na/1.png,normal\nx.png,1\n"))


def test_many_unknown_labels_are_counted_instead_of_listed(table):
    message = _refused(table("id,label\n" + "7,odd\n" * 50))
    assert "row 6 has 'odd'; and 45 more" in message
    assert len(message) < 500


def test_a_row_without_an_id_is_an_error(table):
    assert "row 2 has no filename" in _refused(table("filename,label\n ,anomaly\n"))


def test_a_row_without_a_label_cell_is_an_error(table):
    assert "row 2 has '' (empty)" in _refused(table("id,label\na/1.png\n"))


def test_a_name_with_a_comma_that_is_not_quoted_is_explained(table):
    message = _refused(table("id,label\na,1.png,anomaly\n"))
    assert "Row 2" in message
    assert "double quotes" in message


def test_a_cell_that_is_too_long_is_an_error(table):
    assert "cannot be read as a table near line 2" in _refused(table(f"id,label\n{'x' * 200_000},normal\n"))


def test_a_table_of_other_images_is_an_error_that_shows_both_namings(table):
    message = _refused(table("id,label\nx.png,anomaly\ny.png,normal\n"))
    assert "names 'x.png', 'y.png'; the 6 images are named 'a/1.png', 'a/2.png'" in message


def test_a_table_of_ambiguous_names_only_is_an_error(table):
    assert "No row" in _refused(table("id,label\n1.png,anomaly\n"))


def test_a_table_for_no_images_at_all_is_an_error(table):
    assert "0 images are named nothing" in _refused(table("id,label\nx.png,anomaly\n"), [])


# ---- what is written ------------------------------------------------------------------------


def test_what_is_written_has_the_columns_of_the_contract(tmp_path):
    said = {"tags": ("x", "y"), "note": "hm", "by": "me", "time": "2026-01-02"}
    line = Label(image_id="a,b.png", label="anomaly", split="test", **said)
    path = write_label_csv(tmp_path / "out.csv", {"a,b.png": line})
    assert path.read_bytes() == (
        b'id,label,split,tags,note,by,time\r\n"a,b.png",anomaly,test,x;y,hm,me,2026-01-02\r\n'
    )


def test_hostile_names_come_back_as_they_were(tmp_path):
    store = LabelStore(None)
    store.set(dict.fromkeys(HOSTILE, "anomaly"), note='a "note"\nof two lines')
    got = read_label_csv(write_label_csv(tmp_path / "out.csv", store.current()), HOSTILE)
    assert got.labels == dict.fromkeys(HOSTILE, "anomaly")
    assert got.unknown_ids == ()
    assert set(got.extra["note"]) == {'a "note"\nof two lines'}


def test_a_label_that_was_taken_back_is_written_as_removed(tmp_path):
    path = write_label_csv(tmp_path / "out.csv", {"a": Label(image_id="a", label=None)})
    assert read_label_csv(path, ["a"]).labels == {"a": None}


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("something long" * 100)
    write_label_csv(str(path), {})
    assert path.read_bytes() == b"id,label,split,tags,note,by,time\r\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "out.csv"
    path.write_text("before")

    def full(self, data):
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(WorkspaceError, match=r"cannot be written to '.*out.csv': No space left"):
        write_label_csv(path, {})
    monkeypatch.undo()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(WorkspaceError, match="No such file or directory"):
        write_label_csv(tmp_path / "none" / "out.csv", {})
