from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from amatch_widgets.errors import ImageReadError
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.images.render import Rendering, bounds_of, render
from amatch_widgets.images.source import ArraySource, index_of, open_source
from amatch_widgets.labels import Label
from amatch_widgets.session.pictures import Pictures
from amatch_widgets.widgets.closeup import MAX_SIDE, Closeup, in_bytes, label_row, sky_links, standing_rows


def closeup(image):
    source = ArraySource(image[None])
    return Closeup(Pictures(source, index_of(source), lambda: Preprocess().fitted(source)), "0")


def decoded(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def ramp(height, width, dtype=np.uint16):
    return np.add.outer(np.arange(height), np.arange(width)).astype(dtype)[..., None]


def test_a_picture_is_the_image_without_loss():
    image = ramp(60, 40)
    data, drawn = closeup(image).picture(Rendering(stretch="log"))
    assert drawn == 40
    np.testing.assert_array_equal(decoded(data), render(image, Rendering(stretch="log")))


def test_a_large_image_is_reduced_and_its_parts_are_not():
    image = ramp(1000, 4200)
    large = closeup(image)
    data, drawn = large.picture(Rendering())
    assert drawn == MAX_SIDE
    assert decoded(data).shape == (round(1000 * MAX_SIDE / 4200), MAX_SIDE, 3)
    part = decoded(large.part(Rendering(), (4000, 900, 200, 100)))
    bounds = bounds_of(image, Rendering())  # of the whole, so that no part looks different
    np.testing.assert_array_equal(part, render(image[900:, 4000:], Rendering(), bounds=bounds))
    whole = decoded(large.part(Rendering(), (0, 0, 4200, 1000)))
    assert whole.shape[1] == MAX_SIDE


def test_an_image_that_cannot_be_rendered_says_why():
    with pytest.raises(ImageReadError, match="no pixel is finite"):
        closeup(np.full((8, 8, 1), np.nan, np.float32)).picture(Rendering())
    with pytest.raises(ImageReadError, match="it has 3 channels, and channel 6 was chosen"):
        closeup(np.zeros((8, 8, 3), np.uint8)).part(Rendering(channel=5), (0, 0, 8, 8))


def test_the_facts_of_an_image():
    five = closeup(np.zeros((8, 1200, 5), np.float32))
    assert five.rows(None) == [["Size", "1,200 x 8 px"], ["Pixels", "5 channels, float32"]]
    assert five.n_channels == 5
    assert closeup(ramp(8, 8)).rows(31_234)[1:] == [["Pixels", "1 channel, uint16"], ["File", "31.2 kB"]]
    assert [in_bytes(n) for n in (0, 999, 1000, 48_000_000)] == ["0 B", "999 B", "1.0 kB", "48.0 MB"]


def test_the_standing_of_an_image(session, ranked, scored):
    ids = session.source.ids
    assert standing_rows(session, ids[0]) == [["Score", "none yet"]]
    ranked(1, "novelty")
    rows = dict(standing_rows(session, ids[0]))
    assert rows.keys() == {"Rank", "Ranked by"}
    ranked(1)
    best = int(np.argmax(session.scores))
    assert standing_rows(session, ids[best]) == [
        ["Score", f"{session.scores[best]:.3f}"],
        ["Rank", "1 of 200"],
        ["Ranked by", "your labels (instant tier)"],
    ]
    worst = int(np.argmin(session.scores))
    assert dict(standing_rows(session, ids[worst]))["Rank"] == "200 of 200"


def test_a_line_of_the_history_in_words():
    line = Label(
        image_id="a",
        label="anomaly",
        by="me",
        time="2026-03-01T12:00:00+00:00",
        score=0.25,
        reason="gallery, highest",
        tags=("merger", "tail"),
        note="two cores",
    )
    row = label_row(line)
    assert (row["label"], row["by"]) == ("anomaly", "me")
    assert row["time"].startswith("2026-03-01 ") or row["time"].startswith("2026-02-28 ")
    assert row["more"] == "gallery, highest; score then 0.250; merger, tail; two cores"
    assert label_row(Label(image_id="a", label=None, time="long ago"))["time"] == "long ago"


def test_links_to_the_sky_hold_nothing_but_numbers():
    links = dict(sky_links(10.5, -41.25))
    assert list(links) == ["ESASky", "Aladin Lite"]
    assert all(url.startswith("https://") for url in links.values())
    assert all("target=10.500000%20-41.250000&" in url for url in links.values())


def test_the_channels_are_called_what_the_model_makes_of_them():
    source = open_source(np.random.default_rng(0).normal(size=(1, 20, 20, 4)).astype(np.float32))
    source.bands = ("VIS", "Y", "J", "H")

    def colours(**options):
        image = Preprocess(**options).fitted(source)
        return Closeup(Pictures(source, index_of(source), lambda: image), "0").colours

    assert colours() == "First 3 (RGB)"
    assert colours(mix=["H", {"Y": 0.5, "J": 0.5}, "VIS"]) == "H, 0.5 Y + 0.5 J, VIS"
