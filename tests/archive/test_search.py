"""Texts in ids, against Python's own search in each id."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from amatch_widgets.archive import search
from amatch_widgets.archive.search import Search, Sought, digest, having


class Rows:
    """A piece of which the ids are read once."""

    def __init__(self, part, indices, ids, digest=None):
        self.part, self.indices, self.digest = part, np.asarray(indices), digest
        self._ids, self.n_read = pa.array(ids), 0

    @property
    def ids(self):
        self.n_read += 1
        return self._ids


@pytest.mark.parametrize("block", [1, 7, 1 << 17])
@pytest.mark.parametrize("text", ["a", "aB", "_%", "%", "b\na", "BB", "aaaaaaaaaaaa", ""])
def test_it_finds_what_python_finds(text, block, monkeypatch):
    monkeypatch.setattr(search, "_BLOCK", block)
    rng = np.random.default_rng(0)
    ids = ["".join(rng.choice(list("aAbB_%\n"), rng.integers(0, 9))) for _ in range(500)]
    expected = [text.lower() in i.lower() for i in ids]
    assert having(pa.array(ids), text).tolist() == expected
    assert having(pa.array(ids)[100:300], text).tolist() == expected[100:300]
    assert text in ("aaaaaaaaaaaa", "") or 0 < sum(expected) < 500


def test_a_text_is_not_put_together_of_two_ids():
    assert having(pa.array(["ri", "ng", "", "ring", "ri"]), "ring").tolist() == [0, 0, 0, 1, 0]


@pytest.mark.parametrize("ids", [[], [""], ["", ""], ["ri"]])
def test_of_ids_that_are_shorter_than_the_text_none_has_it(ids):
    assert having(pa.array(ids, pa.string()), "ring").tolist() == [False] * len(ids)


def test_letters_of_any_alphabet_are_alike_in_both_cases():
    ids = pa.array(["GALÁXIA-1", "galáxia-2", "ΣΦΑΙΡΑ", "300 \N{KELVIN SIGN}", "ring"])
    assert having(ids, "láX").tolist() == [1, 1, 0, 0, 0]
    assert having(ids, "φαι").tolist() == [0, 0, 1, 0, 0]
    assert having(ids, "0 k").tolist() == [0, 0, 0, 1, 0]
    assert having(ids, "RING").tolist() == [0, 0, 0, 0, 1]
    assert having(pa.array(["ring"]), "é").tolist() == [0]


def test_what_was_found_of_a_part_is_remembered_and_an_id_that_is_just_the_text():
    part, first = Rows(3, [30, 31, 32], ["Ring", "ring", "rings"]), Rows(None, [44], ["a ring"])
    known = Search()
    for _ in range(2):
        assert known.of("ring").among(part).tolist() == [True] * 3
        assert known.of("ring").among(first).tolist() == [True]
    assert (part.n_read, first.n_read) == (1, 2)  # of what has no part yet there is little
    assert known.of("ring").exact == [31]
    assert known.of("Ring").exact == []  # it was not asked of any
    assert known.of("Ring").among(part).all()
    assert known.of("Ring").exact == [30]


def test_the_texts_that_were_looked_for_last_are_remembered():
    part, known = Rows(0, [0], ["a"]), Search()
    for text in "abcd":
        known.of(text).among(part)
    known.of("a").among(part)
    known.of("e").among(part)
    assert part.n_read == 5
    known.of("a").among(part)
    assert part.n_read == 5
    known.of("b").among(part)
    assert part.n_read == 6


@pytest.mark.parametrize("block", [3, 1 << 17])
def test_ids_are_read_only_where_their_digest_leaves_it_open(block, monkeypatch):
    monkeypatch.setattr(search, "_BLOCK", block)
    ids = [f"Tile_{i // 50:03d}/it's {i}%.png" for i in range(100)]
    known = digest(pa.array(ids))
    assert len(known) == 1024
    for text in ("tile_001", "LE_0", "'s 9", "g", "%.p", "", ids[7]):
        part = Rows(0, range(100), ids, known)
        assert Sought(text).among(part).tolist() == [text.lower() in i.lower() for i in ids]
        assert part.n_read == 1
    for text in ("ring", "tile_7", "%%%", "galáxia", "éé", "999"):
        part = Rows(0, range(100), ids, known)
        assert not Sought(text).among(part).any()
        assert part.n_read == 0


def test_ids_beyond_ascii_have_no_digest_since_their_lower_case_may_change():
    assert digest(pa.array(["ring", "300 \N{KELVIN SIGN}"])) is None
    assert not any(digest(pa.array([], pa.string())))
