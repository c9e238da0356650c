"""Images as files: one for each, under a safe name, told by a table; nothing is written over."""

from __future__ import annotations

import errno
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from amatch_widgets.errors import ConfigError, ImageReadError, LabelError, NotTrainedError, WorkspaceError
from amatch_widgets.images.array import ArraySource
from amatch_widgets.images.render import Rendering
from amatch_widgets.session.cutouts import write_cutouts
from tests.session.helper import SKY, WAIT_S, holey


def read(index):
    return pd.read_csv(index, dtype=str, keep_default_na=False)


def of(ids, folder, pictures=None):
    table = pd.DataFrame({"id": ids})
    return write_cutouts(folder, table, ids, pictures or [(i, i.encode()) for i in ids])


def test_the_best_are_written_as_they_are_and_told_by_a_table(make_session, tmp_path):
    session = make_session()
    session.embed()
    session.wait(WAIT_S)
    best = session.top(5)
    found = session.export_cutouts(tmp_path / "new" / "best", n=5)
    assert (found.n_written, found.problems) == (5, {})
    rows = read(found.index)
    assert list(rows.columns) == ["file", *best.columns, "problem"]
    assert rows["id"].tolist() == best["id"].tolist()
    assert sorted(p.name for p in found.folder.iterdir()) == [*rows["file"], "cutouts.csv"]
    for name, image_id in zip(rows["file"], rows["id"], strict=True):
        np.testing.assert_array_equal(Image.open(found.folder / name), SKY.read(SKY.ids.index(image_id)))


def test_ids_in_their_order_and_all_that_is_labelled(make_session, tmp_path):
    session = make_session()
    wanted = [SKY.ids[7], SKY.ids[3], SKY.ids[7]]
    rows = read(session.export_cutouts(tmp_path / "a", image_ids=wanted).index)
    assert rows["id"].tolist() == wanted[:2]
    assert rows["file"].tolist() == [f"0001_{SKY.ids[7]}.png", f"0002_{SKY.ids[3]}.png"]
    labelled = read(session.export_cutouts(str(tmp_path / "b")).index)
    assert set(labelled["id"]) == set(session.labels.current())
    assert session.export_cutouts(tmp_path / "c", image_ids=[]).n_written == 0


def test_a_rendering_and_a_size(make_session, tmp_path):
    session = make_session()
    look = Rendering(invert=True)
    found = session.export_cutouts(tmp_path / "a", image_ids=SKY.ids[0], rendering=look, side=16)
    picture = Image.open(found.folder / f"0001_{SKY.ids[0]}.png")
    assert picture.size == (16, 16)
    shown = Image.open(io.BytesIO(session.cutout(SKY.ids[0], rendering=look, side=16)))
    np.testing.assert_array_equal(picture, shown)


def test_images_of_more_than_a_million_pixels_lose_nothing_either(make_session, tmp_path):
    rng = np.random.default_rng(0)
    large = rng.integers(0, 256, (1, 1100, 1000, 3), np.uint8)
    session = make_session(ArraySource(large), labels=None, path=tmp_path / "large")
    found = session.export_cutouts(tmp_path / "a", image_ids=["0"])
    with Image.open(found.folder / "0001_0.png") as picture:
        assert picture.format == "PNG"
        np.testing.assert_array_equal(picture, large[0])


def test_an_image_that_cannot_be_read_is_listed_and_stops_nothing(make_session, tmp_path):
    session = make_session(holey([1]))
    ids = list(session.source.ids[:3])
    found = session.export_cutouts(tmp_path / "a", image_ids=ids)
    assert (found.n_written, found.problems) == (2, {ids[1]: "it has a hole"})
    assert repr(found) == f"Cutouts(2 pictures in {str(tmp_path / 'a')!r}, 1 could not be read)"
    rows = read(found.index)
    assert rows["problem"].tolist() == ["", "it has a hole", ""]
    assert rows["file"].tolist() == [f"0001_{ids[0]}.png", "", f"0003_{ids[2]}.png"]
    assert len(list(found.folder.iterdir())) == 3


def test_wrong_calls_write_nothing(make_session, tmp_path):
    session = make_session()
    folder = tmp_path / "a"
    with pytest.raises(NotTrainedError, match="Train first"):
        session.export_cutouts(folder, 3)
    with pytest.raises(LabelError, match=r"Unknown image id 'x'.*Nothing was written"):
        session.export_cutouts(folder, image_ids=[SKY.ids[0], "x"])
    with pytest.raises(ConfigError, match="leave one of them out"):
        session.export_cutouts(folder, 3, image_ids=[SKY.ids[0]])
    with pytest.raises(ConfigError, match="side=0"):
        session.export_cutouts(folder, image_ids=[SKY.ids[0]], side=0)
    assert not folder.exists()


# ---- names, and what may be in the way ---------------------------------------------------------


def test_names_are_safe_different_and_within_the_folder(tmp_path):
    ids = [
        "../../etc/passwd",
        "a/0017.png",
        "b/0017.PNG",
        "store::x",
        "C:\\data\\con.jpg",
        "..",
        "",
        "-rf *",
        "ü\n\x00",
        "x" * 5000,
        "a.b.fits",
    ]
    found = of(ids, tmp_path / "a")
    names = read(found.index)["file"].tolist()
    assert names == [
        "0001_passwd.png",
        "0002_0017.png",
        "0003_0017.png",
        "0004_store_x.png",
        "0005_con.png",
        "0006.png",
        "0007.png",
        "0008_rf.png",
        "0009.png",
        f"0010_{'x' * 80}.png",
        "0011_a.b.png",
    ]
    assert {name: (found.folder / name).read_bytes() for name in names} == dict(
        zip(names, [i.encode() for i in ids], strict=True)
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


def test_more_than_ten_thousand_are_in_the_order_of_their_names(tmp_path):
    n = 12_345
    ids = [str(n - k) for k in range(n)]
    error = ImageReadError("", "no")
    pictures = [(i, b"" if k % 1000 == 0 else error) for k, i in enumerate(ids)]
    names = [name for name in read(of(ids, tmp_path / "a", pictures).index)["file"] if name]
    assert names == sorted(names)
    assert names[0] == f"00001_{n}.png"


@pytest.mark.parametrize("name", ["mine.png", ".hidden", "cutouts.csv"])
def test_a_folder_that_holds_anything_is_left_as_it_is(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(WorkspaceError, match=f"is not empty, '{name}' is in it, and nothing is written over"):
        of(["a"], tmp_path)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(name, "mine")]


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "a").write_text("mine")
    for folder in (tmp_path / "a", tmp_path / "a" / "b", tmp_path / "\0"):
        with pytest.raises(WorkspaceError, match="Choose a folder that you can write to"):
            of(["a"], folder)


def test_a_full_disk_says_how_far_it_came(tmp_path, monkeypatch):
    write = Path.write_bytes

    def full(self, data):
        if self.name.startswith("0003"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        WorkspaceError, match=r"No space left on device. The 2 of 4 cutouts before it are there"
    ):
        of(list("abcd"), tmp_path / "a")
