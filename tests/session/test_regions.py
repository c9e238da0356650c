"""Region files for DS9: a point for each position, and no name that breaks a line."""

from __future__ import annotations

import re
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest

from amatch_widgets.errors import ConfigError
from amatch_widgets.session.provenance import Provenance
from amatch_widgets.session.regions import to_regions

PROVENANCE = Provenance(
    software="amatch-widgets 0.1.0",
    date="2026-07-30T12:00:00+00:00",
    session="a;circle(1,2,3)\ncircle(1,2,3)\udcff",
    source="cutouts",
    fingerprint="f00",
    n_images=5,
    ranked_by="instant",
    ranking="Ranked.",
    model="ab" * 16,
)
# As in the grammar of DS9: a number ends at a comma, a text in braces at the first closing brace.
POINT = re.compile(
    r"point\((-?[\d.]+),(-?[\d.]+)\) # point=circle color=(\S+) text=\{([^{}]*)\}((?: tag=\{[^{}]*\})*)"
)


def regions(rows):
    frame = pd.DataFrame(rows, columns=["id", "label", "tags", "ra", "dec"])
    lines = to_regions(frame, PROVENANCE).decode().split("\n")
    at = lines.index("icrs")
    assert lines[0] == "# Region file format: DS9 version 4.1"
    assert all(line.startswith("# ") and ";" not in line for line in lines[: at - 1])
    assert lines[-1] == ""
    found = [POINT.fullmatch(line) for line in lines[at + 1 : -1]]
    assert all(found), lines
    return [
        (float(m[1]), float(m[2]), m[3], unquote(m[4]), [unquote(t) for t in re.findall("{(.*?)}", m[5])])
        for m in found
    ]


def test_each_image_with_a_position_is_a_point_with_its_label_in_colour_and_text():
    rows = [
        ("a/0017.png", "anomaly", "merger;blue ring", 10.123456789, -0.5),
        ("b", "", "", 359.9999999, 90.0),
        ("nowhere", "anomaly", "", np.nan, np.nan),
        ("c", "normal", "", 0.0, 1e-9),
    ]
    assert regions(rows) == [
        (10.1234568, -0.5, "#e89a0c", "a/0017.png: anomaly", ["anomaly", "merger", "blue ring"]),
        (359.9999999, 90, "white", "b", []),
        (0, 0, "#3f83d1", "c: normal", ["normal"]),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "a}\ncircle(0,0,9)",
        "a} tag={b",
        "{",
        "a;icrs;circle(0,0,9)",
        'a" color="red',
        "tail\\",
        "[exec rm -rf ~] $env(HOME)",
        "\r\x00\x1b[31m\u2028\x85\u202e",
        "100 % of ü = 'all' #1",
        "%7D",
    ],
)
def test_no_name_and_no_tag_breaks_the_line_and_each_can_be_read_back(name):
    ((_, _, _, text, tags),) = regions([(name, "normal", name.replace(";", ","), 1.0, 2.0)])
    assert text == f"{name}: normal"
    assert tags == ["normal", name.replace(";", ",")]
    line = to_regions(
        pd.DataFrame([(name, "", "", 1.0, 2.0)], columns=["id", "label", "tags", "ra", "dec"]), PROVENANCE
    )
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f\\$\[\];%](?![0-9A-F]{2})", line.split(b"icrs\n")[1])


def test_the_file_says_what_it_is_of_in_comments():
    text = to_regions(
        pd.DataFrame([("a", "", "", 1.0, 2.0)], columns=["id", "label", "tags", "ra", "dec"]), PROVENANCE
    )
    assert b"# software: amatch-widgets 0.1.0\n" in text
    assert b"# session: a%3Bcircle(1,2,3)%0Acircle(1,2,3)%ED%B3%BF\n" in text
    assert f"# model: {'ab' * 16}\n".encode() in text


def test_images_without_any_position_are_refused_in_plain_words():
    with pytest.raises(ConfigError, match=r"None of the 2 images has a position .* Write a \.csv"):
        regions([("a", "", "", np.nan, np.nan), ("b", "", "", np.nan, np.nan)])
