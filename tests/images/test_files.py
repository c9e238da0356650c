"""Folders: which files are images, what their ids are, and hostile names and files."""

from __future__ import annotations

import json
import os
import pathlib
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from amatch_widgets.errors import ImageReadError, SourceError
from amatch_widgets.images import files
from amatch_widgets.images.files import FolderSource
from amatch_widgets.images.packed import PackedIds
from amatch_widgets.images.source import open_source, source_from_spec
from amatch_widgets.images.testing import SourceContract, UnreadableImageContract

HOSTILE_NAMES = [
    "<img src=x onerror=alert(1)>.png",
    "{{ constructor.constructor('alert(1)')() }}.png",
    "two\nlines.png",
    "tab\tand \x1b[31mescape.png",
    "'single' \"double\" `back` \\slash.png",
    "ünïcödé 星系 🌌 עברית.png",
    "e\u0301 and \u00e9.png",
    " leading and trailing .png",
    "-rf.png",
    "$(reboot);&|.png",
    "%s%n{0}.png",
    "x" * 251 + ".png",
    b"bytes \xff\xfe.png",
    b"text \\udcff.png",
    b"both \xff \\udcff \\.png",
]


def write_image(path, shape=(8, 9, 3), value=7):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value, np.uint8)).save(path)
    return path


class TestFolder(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        write_image(tmp_path / "b" / "2.PNG", value=2)
        write_image(tmp_path / "b" / "1.jpeg", (40, 50), value=1)
        write_image(tmp_path / "a.tif", value=3)
        write_image(tmp_path / "large.jpg", (400, 300, 3), value=200)
        return FolderSource(tmp_path)


class TestFolderWithADamagedFile(UnreadableImageContract):
    @pytest.fixture
    def damaged(self, tmp_path):
        (tmp_path / "a.png").write_bytes(b"nonsense")
        write_image(tmp_path / "b.png")
        return FolderSource(tmp_path)


def test_ids_are_sorted_paths_relative_to_the_folder(tmp_path):
    for name in ("b/c/1.png", "b/2.tiff", "a10.jpg", "a9.JPG", "B.TIF", "z.jpeg"):
        write_image(tmp_path / name)
    source = open_source(tmp_path)
    assert list(source.ids) == ["B.TIF", "a10.jpg", "a9.JPG", "b/2.tiff", "b/c/1.png", "z.jpeg"]
    assert source.name == tmp_path.name
    assert source.channels == 3


def test_hidden_files_and_folders_are_left_out(tmp_path):
    for name in (".hidden.png", ".cache/1.png", "a/._1.png", "a/1.png"):
        write_image(tmp_path / name)
    assert list(FolderSource(tmp_path).ids) == ["a/1.png"]


def test_a_folder_named_like_an_image_is_searched(tmp_path):
    write_image(tmp_path / "odd.png" / "1.png")
    assert list(FolderSource(tmp_path).ids) == ["odd.png/1.png"]


def test_links_are_followed_and_loops_end(tmp_path):
    write_image(tmp_path / "root" / "a" / "1.png")
    write_image(tmp_path / "elsewhere" / "2.png")
    (tmp_path / "root" / "a" / "up").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "0").symlink_to(tmp_path / "root" / "a")
    (tmp_path / "root" / "far").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "farther").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "3.png").symlink_to(tmp_path / "elsewhere" / "2.png")
    source = FolderSource(tmp_path / "root")
    assert list(source.ids) == ["3.png", "a/1.png", "far/2.png"]
    assert source.skipped == {}


def test_a_broken_link_and_a_pipe_are_listed_as_skipped(tmp_path):
    write_image(tmp_path / "1.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.png")
    source = FolderSource(tmp_path)
    assert list(source.ids) == ["1.png"]
    assert set(source.skipped) == {"broken.png", "pipe.png"}
    assert "broken link or no ordinary file" in source.skipped["pipe.png"]


def refuse_to_list(monkeypatch, folder):
    """Make os.scandir fail for one folder: permissions would not stop root."""
    scandir = os.scandir

    def scan(path):
        if os.path.normpath(path) == str(folder):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(files.os, "scandir", scan)


def test_an_unreadable_subfolder_is_listed_as_skipped(tmp_path, monkeypatch):
    write_image(tmp_path / "closed" / "1.png")
    write_image(tmp_path / "open" / "2.png")
    refuse_to_list(monkeypatch, tmp_path / "closed")
    source = FolderSource(tmp_path)
    assert list(source.ids) == ["open/2.png"]
    assert source.skipped == {"closed/": "you have no permission to read it"}


def test_an_unreadable_folder_is_a_source_error(tmp_path, monkeypatch):
    refuse_to_list(monkeypatch, tmp_path)
    with pytest.raises(SourceError, match=r"cannot be listed: Permission denied. Check path and permissions"):
        FolderSource(tmp_path)


@pytest.mark.parametrize(("name", "message"), [("nothing", "No such file"), ("a.png", "Not a directory")])
def test_what_is_no_folder_cannot_be_listed(tmp_path, name, message):
    write_image(tmp_path / "a.png")
    with pytest.raises(SourceError, match=f"cannot be listed: {message}"):
        FolderSource(tmp_path / name)


def test_an_empty_folder_says_what_is_wanted(tmp_path):
    with pytest.raises(
        SourceError, match=r"is empty. Wanted are files that end in .jpg, .jpeg, .png, .tif, .tiff, .fits"
    ):
        open_source(tmp_path)


def test_a_folder_without_an_image_says_which_files_were_found(tmp_path):
    for name in ("a.tar.gz", "b.tar.gz", "c.CSV", "README"):
        (tmp_path / name).touch()
    with pytest.raises(
        SourceError, match=r"holds no image; found were other files: 2 .tar.gz, 1 .*Wanted are"
    ):
        open_source(tmp_path)


def test_a_folder_of_which_nothing_can_be_looked_at_says_why(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "nothing")
    with pytest.raises(SourceError, match=r"no image that can be looked at. Skipped 'a.png': it is a broken"):
        open_source(tmp_path)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_hostile_name_is_valid_text_and_leads_to_its_file(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    write_image(tmp_path / "plain.png", value=1).rename(path)
    source = pickle.loads(pickle.dumps(FolderSource(tmp_path)))
    (image_id,) = source.ids
    assert json.loads(json.dumps(image_id)).encode("utf-8")
    if isinstance(name, str):
        assert image_id == name
    assert source.path_of(0) == path
    assert source.read(0)[0, 0, 0] == 1


def test_bytes_that_are_no_text_never_share_an_id_with_their_escape(tmp_path):
    for raw in (b"\xff.png", b"\\udcff.png", b"\\\\udcff.png", b"\\xff.png"):
        (tmp_path / os.fsdecode(raw)).touch()
    assert list(FolderSource(tmp_path).ids) == [r"\\\\udcff.png", r"\\udcff.png", r"\udcff.png", r"\xff.png"]


@settings(derandomize=True, deadline=None, max_examples=300)
@given(*[st.text(st.sampled_from("\\udcf8a\udcff\udc80é/"), max_size=14)] * 2)
def test_ids_of_different_paths_differ(first, second):
    for path in (first, second):
        files._to_id(path).encode("utf-8")
    assert (files._to_id(first) == files._to_id(second)) == (first == second)


def test_a_hostile_name_stays_on_one_line_of_the_error(tmp_path):
    (tmp_path / "two\nlines <b>.png").touch()
    with pytest.raises(ImageReadError) as caught:
        FolderSource(tmp_path).read(0)
    assert "\n" not in str(caught.value)
    assert caught.value.image_id == "two\nlines <b>.png"


def test_a_vanished_file_is_an_image_read_error(tmp_path):
    path = write_image(tmp_path / "a.png")
    source = FolderSource(tmp_path)
    path.unlink()
    with pytest.raises(ImageReadError, match=r"'a.png' cannot be read: the file is gone since"):
        source.read(0)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(13, "Permission denied"), "you have no permission to read it"),
        (OSError(116, "Stale file handle"), "Stale file handle"),
        (OSError("no number"), "no number"),
    ],
)
def test_a_failing_disk_is_an_image_read_error(tmp_path, monkeypatch, error, reason):
    write_image(tmp_path / "a.png")
    source = FolderSource(tmp_path)

    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr(pathlib.Path, "open", fail)
    with pytest.raises(ImageReadError) as caught:
        source.read(0)
    assert caught.value.reason == reason


def test_a_disk_that_fails_in_the_middle_is_not_called_a_damaged_file(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png")

    def fail(*_args, **_options):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile", fail)
    with pytest.raises(ImageReadError, match=r"'a.png' cannot be read: Input/output error"):
        FolderSource(tmp_path).read(0)


def test_a_folder_that_became_a_file_of_the_same_name_is_an_image_read_error(tmp_path):
    path = write_image(tmp_path / "a.png")
    source = FolderSource(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ImageReadError, match="Is a directory"):
        source.read(0)


def test_the_fingerprint_depends_on_the_names_alone(tmp_path):
    write_image(tmp_path / "one" / "a.png", value=1)
    write_image(tmp_path / "two" / "a.png", value=2)
    one, two = FolderSource(tmp_path / "one"), FolderSource(tmp_path / "two")
    assert one.fingerprint() == two.fingerprint()
    write_image(tmp_path / "two" / "b.png")
    assert FolderSource(tmp_path / "two").fingerprint() != two.fingerprint()


def test_a_folder_is_opened_again_from_its_spec(tmp_path, monkeypatch):
    write_image(tmp_path / "set" / "a.png")
    monkeypatch.chdir(tmp_path)
    source = FolderSource("set")
    monkeypatch.chdir("/")
    assert source_from_spec(json.loads(json.dumps(source.spec()))).fingerprint() == source.fingerprint()
    assert source.read(0).shape == (8, 9, 3)


def test_a_folder_whose_own_name_is_no_text_can_be_opened(tmp_path):
    folder = tmp_path / os.fsdecode(b"set \xff")
    write_image(folder / "a.png")
    source = FolderSource(folder)
    assert source.name == r"set \udcff"
    assert source_from_spec(json.loads(json.dumps(source.spec()))).read(0).size


def test_mixed_sizes_and_kinds_are_read_each_as_it_is(tmp_path):
    write_image(tmp_path / "a.png", (8, 9))
    write_image(tmp_path / "b.png", (30, 20, 4))
    write_image(tmp_path / "c.jpg", (5, 6, 3))
    source = FolderSource(tmp_path)
    assert [source.read(i).shape for i in range(3)] == [(8, 9, 1), (30, 20, 4), (5, 6, 3)]


def test_the_names_of_many_files_are_packed_and_sorted_as_text(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_BLOCK", 3)
    names = [
        "a/\uffee.png",
        "a/\U0001f30c.png",
        "a/z.png",
        "Z.png",
        "b/1.png",
        "b/10.png",
        "b/2.png",
        "é.png",
    ]
    for name in names:
        write_image(tmp_path / name)
    source = FolderSource(tmp_path)
    assert list(source.ids) == sorted(names)
    assert isinstance(source.ids, PackedIds)
    assert [source.ids.position(name) for name in sorted(names)] == list(range(len(names)))
