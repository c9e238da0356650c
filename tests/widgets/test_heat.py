"""The map of why an image scored so, as a picture and in words."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.session import Session
from amatch_widgets.session.explain import Explanation
from amatch_widgets.widgets.heat import explained, heat_picture


def decoded(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def test_what_speaks_for_is_orange_what_speaks_against_is_blue_and_the_rest_is_clear():
    losses = np.zeros((3, 4), np.float32)
    losses[0, 0], losses[1, 1], losses[2, 2] = 4, -2, 0.3
    picture = decoded(heat_picture(losses, 0.5))
    assert picture.shape == (3, 4, 4)
    assert picture[0, 0].tolist() == [255, 140, 0, 255]
    assert picture[1, 1, 2] > picture[1, 1, 0]
    assert 80 < picture[1, 1, 3] < 140
    assert picture[2, 2, 3] == picture[0, 3, 3] == 0  # too little to be worth a look


def test_a_map_of_next_to_nothing_is_not_drawn_as_if_it_mattered():
    assert decoded(heat_picture(np.full((4, 4), 0.1, np.float32), 0.5))[..., 3].max() < 40
    assert not decoded(heat_picture(np.zeros((4, 4), np.float32), 0.5))[..., 3].any()


@pytest.fixture
def cropped(tmp_path, light):
    images = np.random.default_rng(0).integers(0, 256, (4, 40, 60, 3), dtype=np.uint8)
    image = Preprocess(size=32, crop=48)
    with Session(images, path=tmp_path / "crop", train=light(), image=image) as session:
        yield session


def test_it_lies_over_the_part_that_the_model_sees(cropped, monkeypatch):
    losses = np.eye(32, dtype=np.float32) * 3
    monkeypatch.setattr(cropped, "explain", lambda i, coarse: Explanation(i, losses, 2.0, 0.88, (11, 6)))
    shown = explained(cropped, "1", (40, 60, 3))
    assert shown["at"] == [6, 0, 48, 40]
    assert decoded(base64.b64decode(shown["url"].partition(",")[2])).shape == (32, 32, 4)
    assert shown["rows"] == [
        "Score 0.880; about 0.194 without the part that counts most.",
        "Nothing finer than 1/5 of the image can be told apart.",
    ]


def test_words_say_when_nothing_matters_and_when_another_model_ranks_too(cropped, monkeypatch):
    flat = np.zeros((32, 32), np.float32)
    monkeypatch.setattr(cropped, "explain", lambda i, coarse: Explanation(i, flat, -2.0, 0.12, (11, 6)))
    monkeypatch.setattr(type(cropped), "ranked_by", "both")
    rows = explained(cropped, "1", (40, 60, 3))["rows"]
    assert rows[0] == "Score 0.120; about 0.120 without the part that counts most."
    assert rows[1] == "No single part counts for much, so the colours are pale."
    assert rows[2] == "The trained model, which ranks too, was not asked."
