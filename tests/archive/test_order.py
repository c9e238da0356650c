"""An archive page by page, against the same of plain arrays; what is in files and what is in memory alike."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from amatch_widgets.archive import key, scan
from amatch_widgets.archive.order import Chosen, Picked, Row
from amatch_widgets.archive.parts import Parts
from amatch_widgets.archive.scan import SCANNED, Scan
from amatch_widgets.archive.scores import ArchiveScores
from amatch_widgets.archive.search import Search
from amatch_widgets.archive.snapshot import Piece
from amatch_widgets.errors import ConfigError, WorkspaceError

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


@pytest.fixture(params=["near the beginning", "far from the beginning"])
def near_or_far(request, monkeypatch):
    """Let what is asked be held in memory, or be found by several looks at the files."""
    if request.param != "near the beginning":
        for module, name, value in [
            (scan, "_HELD", 20),
            (scan, "_AROUND", 7),
            (scan, "_PASSED", 10),
            (key, "_STEP_BITS", 3),
        ]:
            monkeypatch.setattr(module, name, value)


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
    @pytest.fixture
    def made(self, scores, near_or_far):
        return Scan(scores.now(), "highest")


class TestInMemory(OrderContract):
    @pytest.fixture
    def made(self, values, listed):
        return Chosen(rows_of(values, listed))


class TestPicked(OrderContract):
    @pytest.fixture
    def made(self, scores, values, listed):
        return Picked(scores.now(), np.array(listed), values[listed])


@pytest.mark.parametrize("how", ["highest", "lowest", "uncertain"])
def test_page_by_page_each_image_comes_once_and_in_order(scores, values, how, near_or_far):
    made, listed = Scan(scores.now(), how), expected(values, how)
    assert [row.index for start in range(0, N, 96) for row in made.rows(start, 96)] == listed
    assert made.place(listed[500]) == 500


def test_a_random_order_has_all_of_them_and_depends_on_the_seed(scores, near_or_far):
    made = [Scan(scores.now(), "random", seed=seed) for seed in (1, 1, 2)]
    first, again, other = ([r.index for start in range(0, N, 96) for r in m.rows(start, 96)] for m in made)
    assert first == again != other
    assert sorted(first) == sorted(other) == [i for i in range(N) if i not in (3, 400)]
    assert made[0].place(first[321]) == 321


def test_images_without_a_score_are_listed_with_the_reason(scores):
    made = Scan(scores.now(), "problem")
    assert made.rows(0, 10) == [Row(i, IDS[i], None, f"torn {i}") for i in (3, 400)]
    assert (made.place(400), made.seek("400", -1)) == (1, 1)


def test_a_filter_and_what_is_left_out(scores, values, near_or_far):
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


@pytest.mark.parametrize("how", ["highest", "lowest", "uncertain"])
def test_any_filter_of_any_order_is_that_of_a_table(scores, values, how, near_or_far):
    table = pd.DataFrame({"id": IDS, "score": values.astype(float)})
    key = {"highest": -table.score, "lowest": table.score, "uncertain": (table.score - 0.5).abs()}[how]
    bounds = [(0.0, 1.0), (0.05, 0.5), (0.01, 0.01), (0.0, 0.0)]
    for (least, most), text in itertools.product(bounds, ["g/it's 1", "7%.P", "_"]):
        wanted = table.score.between(least, most) & ~table.index.isin([10, 20, 31])
        wanted &= table.id.str.lower().str.contains(text.lower(), regex=False)
        listed = key[wanted].sort_values(kind="stable").index.tolist()
        made = Scan(scores.now(), how, least=least, most=most, contains=text, left_out=[31, 10, 20])
        assert len(made) == len(listed)
        found = [made.found(start, 40).indices for start in range(0, len(listed), 40)]
        assert [int(i) for page in found for i in page] == listed
        if listed:
            assert made.place(listed[-1]) == len(listed) - 1


@pytest.mark.parametrize("bounds", [(0.0, 0.6), (0.05, 1.0)])
def test_a_bound_between_two_float32_lets_in_neither_that_is_beyond_it(scores, values, bounds):
    is_in = (values.astype(float) >= bounds[0]) & (values.astype(float) <= bounds[1])
    assert len(Scan(scores.now(), least=bounds[0], most=bounds[1])) == is_in.sum()
    assert scores.count(least=bounds[0], most=bounds[1]) == is_in.sum()


def test_where_nearly_all_scores_are_alike_each_image_comes_once_and_in_order(tmp_path, near_or_far):
    values = np.full(N, 0.25, np.float32)
    values[::100], values[7] = 1, np.nan
    parts = Parts.create(tmp_path, fingerprint="ab", n_images=N, spec={}, part_rows=ROWS)
    write(parts, parts.begin("k", ""), values, range(parts.n_parts))
    made, listed = Scan(ArchiveScores(parts).now()), expected(values, "highest")
    assert [row.index for start in range(0, N, 96) for row in made.rows(start, 96)] == listed
    assert [made.rows(place, 1)[0].index for place in (998, 3, 500)] == [listed[k] for k in (998, 3, 500)]
    assert made.place(listed[777]) == 777


def test_the_ids_are_read_once_for_all_pages_and_orders_of_a_text(scores, monkeypatch):
    search = Search()
    listed = Scan(scores.now(), contains="ring", search=search).rows(0, N)
    monkeypatch.setattr(Piece, "ids", property(lambda _: pytest.fail("the ids are read again")))
    again = Scan(scores.now(), "lowest", contains="ring", search=search)
    assert sorted(row.index for row in again.rows(0, N)) == sorted(row.index for row in listed)
    assert (
        Scan(scores.now(), least=2.0, contains="new", search=search).rows(0, 9) == []
    )  # none is left to look at


def test_a_part_that_is_damaged_is_named(tmp_path, values):
    parts = Parts.create(tmp_path, fingerprint="ab", n_images=N, spec={}, part_rows=ROWS)
    cycle = parts.begin("k", "")
    write(parts, cycle, values, [0, 1])
    path = tmp_path / cycle.folder / "part-00001.parquet"
    whole = path.read_bytes()
    made = Scan(ArchiveScores(parts).now())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WorkspaceError, match=r"part-00001.parquet' cannot be read"):
        len(made)
    path.unlink()
    with pytest.raises(WorkspaceError, match=r"part-00001.parquet' cannot be read"):
        len(made)
    path.write_bytes((tmp_path / cycle.folder / "part-00000.parquet").read_bytes())
    with pytest.raises(WorkspaceError, match=r"part-00001.parquet' cannot be read: its first position is 0"):
        len(made)
    path.write_bytes(whole)
    assert len(made) == 255


def test_parts_that_cannot_have_a_text_are_told_by_their_footers(tmp_path, values, monkeypatch):
    parts = Parts.create(tmp_path, fingerprint="ab", n_images=N, spec={}, part_rows=ROWS)
    write(parts, parts.begin("k", ""), values, range(parts.n_parts))
    scores, read, ids = ArchiveScores(parts), [], Piece.ids
    monkeypatch.setattr(Piece, "ids", property(lambda piece: (read.append(piece.part), ids.fget(piece))[1]))
    assert len(scores.scan(contains="S 99%")) == 1
    assert len(scores.scan(contains="galaxy")) == 0
    assert sorted(read) == [0, 7]  # the latter has "s 99" and "99%", but not in one id


def test_parts_need_neither_statistics_nor_one_row_group(tmp_path, values):
    parts = Parts.create(tmp_path, fingerprint="ab", n_images=N, spec={}, part_rows=ROWS)
    cycle = parts.begin("k", "")
    write(parts, cycle, values, range(parts.n_parts))
    for path in (tmp_path / cycle.folder).glob("*.parquet"):
        table = pq.read_table(path, partitioning=None)
        pq.write_table(table, path, row_group_size=50, write_statistics=False)
    made = Scan(ArchiveScores(parts).now(), contains="RING")
    listed = [i for i in expected(values, "highest") if i % 10 == 0]
    assert made.rows(0, N) == rows_of(values, listed)
    assert [row.index for row in Scan(ArchiveScores(parts).now(), "problem").rows(0, 9)] == [3, 400]


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
    assert (made.place(301), made.place(302), made.seek("RING", -1), made.seek(IDS[5], 0)) == (1, None, 0, 2)
    assert Scan(ArchiveScores(parts).now(), contains="disc", left_out=[5, 6]).rows(0, 9) == made.rows(1, 1)
    write(parts, cycle, np.zeros(N, np.float32), [2])
    made = Scan(ArchiveScores(parts).now())
    assert [row.index for row in made.rows(0, 2)] == [5, 256]
    assert (len(made), made.place(301)) == (129, 46)


def test_an_order_that_there_is_not_is_refused(scores):
    with pytest.raises(ConfigError, match=r"'best'. There are 'highest', 'lowest'"):
        Scan(scores.now(), "best")
    assert set(SCANNED) >= {"highest", "lowest", "uncertain", "random"}
