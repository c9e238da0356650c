"""An archive page by page, against the same of plain arrays; what is in files and what is in memory alike."""

from __future__ import annotations

import numpy as np
import pytest

from amatch_widgets.archive import order
from amatch_widgets.archive.order import SCANNED, Chosen, Row, Scan
from amatch_widgets.archive.parts import Parts
from amatch_widgets.archive.scores import ArchiveScores
from amatch_widgets.errors import ConfigError

N, ROWS = 1000, 128
IDS = [f"{'Ring' if i % 10 == 0 else 'disc'}/it's {i}%.png" for i in range(N)]


@pytest.fixture(scope="module")
def values():
    values = np.round(np.random.default_rng(0).beta(0.2, 2, N), 2).astype(np.float32)  # with 0, 1 and ties
    values[:2] = 0, 1
    values[[3, 400]] = np.nan
    return values


@pytest.fixture(scope="module")
def scores(tmp_path_factory, values):
    parts = Parts.create(
        tmp_path_factory.mktemp("it's"), fingerprint="ab", n_images=N, spec={}, part_rows=ROWS
    )
    write(parts, parts.begin("k", ""), values, range(parts.n_parts))
    return ArchiveScores(parts)


def write(parts, cycle, values, numbers):
    for number in numbers:
        start, stop = parts.bounds(number)
        bad = np.flatnonzero(np.isnan(values[start:stop])) + start
        problems = {int(i): f"torn {i}" for i in bad}
        parts.write(cycle, number, ids=IDS[start:stop], scores=values[start:stop], problems=problems)


def expected(values, how):
    values = values.astype(float)
    keys = {"highest": -values, "lowest": values, "uncertain": np.abs(values - 0.5)}[how]
    return np.lexsort((np.arange(N), keys))[: np.isfinite(values).sum()].tolist()


def rows_of(values, indices):
    return [Row(i, IDS[i], float(values[i])) for i in indices]


class OrderContract:
    """What every order keeps; `listed` are the positions that it lists."""

    @pytest.fixture
    def listed(self, values):
        return expected(values, "highest")

    def test_its_rows_are_those_of_the_array(self, made, listed, values):
        assert len(made) == len(listed)
        assert made.rows(0, 30) == rows_of(values, listed[:30])
        assert made.rows(N - 40, 100) == rows_of(values, listed[N - 40 :])
        assert made.rows(len(listed), 10) == made.rows(N * 9, 10) == made.rows(0, 0) == []

    def test_the_place_of_each_image_is_where_its_row_is(self, made, listed):
        for place in (0, 1, 17, len(listed) - 1):
            assert made.place(listed[place]) == place
        assert made.place(3) is None  # it cannot be read

    def test_an_image_is_found_by_a_part_of_its_id_and_the_next_one_after_it(self, made, listed):
        rings = [place for place, i in enumerate(listed) if i % 10 == 0]
        assert made.seek("rING/IT'S", -1) == rings[0]
        assert made.seek("ring/", rings[0]) == rings[1]
        assert made.seek("ring/", rings[-1]) == rings[0]
        assert made.seek("nothing", 5) is None

    def test_an_id_that_is_just_the_text_comes_first(self, made, listed):
        assert made.seek(IDS[61], -1) == listed.index(61)


class TestInFiles(OrderContract):
    @pytest.fixture(params=[0, 5000], ids=["far from the beginning", "near the beginning"])
    def made(self, scores, request, monkeypatch):
        monkeypatch.setattr(order, "_NEAR", request.param)
        return Scan(scores.now(), "highest")


class TestInMemory(OrderContract):
    @pytest.fixture
    def made(self, values, listed):
        return Chosen(rows_of(values, listed))


@pytest.mark.parametrize("near", [0, 5000])
@pytest.mark.parametrize("how", ["highest", "lowest", "uncertain"])
def test_page_by_page_each_image_comes_once_and_in_order(scores, values, how, near, monkeypatch):
    monkeypatch.setattr(order, "_NEAR", near)
    made, listed = Scan(scores.now(), how), expected(values, how)
    assert [row.index for start in range(0, N, 96) for row in made.rows(start, 96)] == listed
    assert made.place(listed[500]) == 500


@pytest.mark.parametrize("near", [0, 5000])
def test_a_random_order_has_all_of_them_and_depends_on_the_seed(scores, near, monkeypatch):
    monkeypatch.setattr(order, "_NEAR", near)
    made = [Scan(scores.now(), "random", seed=seed) for seed in (1, 1, 2)]
    first, again, other = ([r.index for start in range(0, N, 96) for r in m.rows(start, 96)] for m in made)
    assert first == again != other
    assert sorted(first) == sorted(other) == [i for i in range(N) if i not in (3, 400)]
    assert made[0].place(first[321]) == 321


def test_images_without_a_score_are_listed_with_the_reason(scores):
    made = Scan(scores.now(), "problem")
    assert made.rows(0, 10) == [Row(i, IDS[i], None, f"torn {i}") for i in (3, 400)]
    assert (made.place(400), made.seek("400", -1)) == (1, 1)


@pytest.mark.parametrize("few", [5, 5000])
def test_a_filter_and_what_is_left_out(scores, values, few, monkeypatch):
    monkeypatch.setattr(order, "_FEW", few)
    made = Scan(scores.now(), "highest", least=0.05, most=0.5, contains="RING", left_out=[10, 20, 3])
    listed = [
        i
        for i in expected(values, "highest")
        if np.float32(0.05) <= values[i] <= 0.5 and i % 10 == 0 and i not in (10, 20)
    ]
    assert [row.index for row in made.rows(0, N)] == listed
    assert len(made) == len(listed)
    assert made.place(10) is None
    assert made.place(listed[4]) == 4


def test_what_a_user_types_is_never_a_part_of_the_question(scores):
    assert len(Scan(scores.now(), contains="it's")) == N - 2
    for text in ("'; DROP TABLE x; --", "{rows}", "$n", "%' OR '1'='1"):
        made = Scan(scores.now(), contains=text)
        assert (len(made), made.rows(0, 9), made.seek(text, 0)) == (0, [], None)


def test_it_stays_as_it_was_made_while_more_is_scored(tmp_path, values):
    parts = Parts.create(tmp_path, fingerprint="ab", n_images=N, spec={}, part_rows=ROWS)
    cycle = parts.begin("k", "")
    write(parts, cycle, values, [0, 1])
    scores = ArchiveScores(parts)
    before = scores.now()
    made = Scan(before)
    write(parts, cycle, values, [2])
    assert (len(made), len(Scan(scores.now()))) == (255, 383)
    assert (before.n_done, scores.now().n_done) == (256, 384)


def test_before_its_part_is_there_an_image_is_listed_by_what_was_scored_first(tmp_path, values):
    parts = Parts.create(tmp_path, fingerprint="ab", n_images=N, spec={}, part_rows=ROWS)
    old = parts.begin("k", "")
    write(parts, old, values, range(parts.n_parts))
    cycle = parts.begin("other", "")
    first = np.array([5, 300, 301])
    parts.write_first(cycle, first, [IDS[i] for i in first], np.float32([0.5, 0.9, 0.7]))
    made = Scan(ArchiveScores(parts).now())
    assert [row.index for row in made.rows(0, 9)] == [300, 301, 5]
    write(parts, cycle, np.zeros(N, np.float32), [2])
    made = Scan(ArchiveScores(parts).now())
    assert [row.index for row in made.rows(0, 2)] == [5, 256]
    assert (len(made), made.place(301)) == (129, 46)


def test_an_order_that_there_is_not_is_refused(scores):
    with pytest.raises(ConfigError, match=r"'best'. There are 'highest', 'lowest'"):
        Scan(scores.now(), "best")
    assert set(SCANNED) >= {"highest", "lowest", "uncertain", "random"}
