"""Questions to the scores of an archive, against the same asked of plain arrays."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from amatch_widgets.archive.parts import Parts
from amatch_widgets.archive.scores import ArchiveScores
from amatch_widgets.errors import ConfigError, MissingExtraError, NotTrainedError

N, ROWS = 1000, 128
IDS = [f"{'Ring' if i % 10 == 0 else 'disc'}/it's {i}%.png" for i in range(N)]


def fill(parts, cycle, scores):
    for part in range(parts.n_parts):
        start, stop = parts.bounds(part)
        bad = np.flatnonzero(np.isnan(scores[start:stop])) + start
        problems = {int(i): f"torn {i}" for i in bad}
        parts.write(cycle, part, ids=IDS[start:stop], scores=scores[start:stop], problems=problems)


@pytest.fixture
def values():
    rng = np.random.default_rng(0)
    first, second = (np.round(rng.random(N), 2).astype(np.float32) for _ in range(2))  # with ties
    first[[3, 400]] = np.nan
    second[[3, 500]] = np.nan
    return first, second


@pytest.fixture
def parts(tmp_path, values):
    parts = Parts.create(tmp_path / "it's [here]", fingerprint="ab", n_images=N, spec={}, part_rows=ROWS)
    for number, scores in enumerate(values):
        fill(parts, parts.begin(f"k{number}", ""), scores)
    return parts


def order(scores):
    return np.lexsort((np.arange(N), -np.where(np.isnan(scores), -1, scores)))[: np.isfinite(scores).sum()]


def test_the_top_is_that_of_the_array(parts, values):
    scores = ArchiveScores(parts)
    assert (scores.cycle.number, scores.is_complete) == (2, True)
    found = scores.top(50)
    assert found["index"].tolist() == order(values[1])[:50].tolist()
    assert found["id"].tolist() == [IDS[i] for i in found["index"]]
    np.testing.assert_array_equal(found["score"], values[1][found["index"]])
    assert scores.top(20, offset=30)["index"].tolist() == order(values[1])[30:50].tolist()
    assert len(scores.top(5000)) == N - 2
    assert scores.top(0).empty


def test_filters_choose_by_score_and_id(parts, values):
    scores = ArchiveScores(parts)
    is_in = (values[1] >= np.float32(0.25)) & (values[1] <= np.float32(0.5))
    assert scores.count(least=0.25, most=0.5) == is_in.sum()
    is_ring = np.arange(N) % 10 == 0
    assert scores.count(contains="RING/it's") == (is_ring & np.isfinite(values[1])).sum()
    assert scores.count(contains="0%.") == (is_ring & np.isfinite(values[1])).sum()
    assert scores.count(contains="%ring") == 0
    found = scores.top(5, least=0.25, most=0.5, contains="ring")["index"].tolist()
    assert found == [i for i in order(values[1]) if is_in[i] and is_ring[i]][:5]


def test_the_histogram_counts_every_score_once(parts, values):
    counts, edges = ArchiveScores(parts).histogram(20)
    finite = values[1][np.isfinite(values[1])].astype(np.float64)
    places = np.minimum(np.floor(finite * 20), 19).astype(int)
    assert counts.tolist() == np.bincount(places, minlength=20).tolist()
    np.testing.assert_allclose(edges, np.linspace(0, 1, 21))


def test_ranks_are_compared_with_those_of_the_cycle_before(parts, values):
    found = ArchiveScores(parts).rising(100)
    assert found["rank"].tolist() == list(range(1, 101))
    for row in found.itertuples():
        before = values[0][row.index]
        if np.isnan(before):
            assert row.rank_before is pd.NA
        else:
            assert row.rank_before == 1 + (values[0] > before).sum()


def test_scores_of_some_images(parts, values):
    scores = ArchiveScores(parts)
    assert scores.of([999, 5, 500, 5]) == {5: values[1][5], 999: values[1][999]}
    assert scores.of([]) == {}


def test_what_cannot_be_read_is_listed(parts):
    scores = ArchiveScores(parts, parts.cycles()[0])
    assert scores.n_problems == 2
    assert scores.problems()["index"].tolist() == [3, 400]
    assert scores.problems(1)["problem"].tolist() == ["torn 3"]


def test_while_parts_are_missing_it_answers_from_those_there(parts, values):
    cycle = parts.begin("k9", "")
    fresh = ArchiveScores(parts)
    assert fresh.cycle.number == 2  # the last with a score
    for part in (0, 3):
        start, stop = parts.bounds(part)
        parts.write(
            cycle, part, ids=IDS[start:stop], scores=np.full(stop - start, 0.5, np.float32), problems={}
        )
    scores = ArchiveScores(parts)
    assert (scores.cycle.number, scores.is_complete) == (3, False)
    assert scores.count() == 2 * ROWS
    assert "2 of 8 parts so far" in repr(scores)
    assert scores.of([130, 5]) == {5: 0.5}
    assert scores.of([130]) == {}


def test_what_was_scored_first_counts_until_its_parts_are_there(parts, values):
    cycle = parts.begin("k9", "")
    first = np.array([1, 2, 3 * ROWS, 999])
    parts.write_first(cycle, first, [IDS[i] for i in first], np.array([0.9, 0.8, 0.7, 0.6], np.float32))
    scores = ArchiveScores(parts)
    assert scores.cycle.number == 3
    assert scores.top()["index"].tolist() == first.tolist()
    assert scores.of([2, 5]) == {2: np.float32(0.8)}
    start, stop = parts.bounds(0)
    part = np.full(ROWS, 0.75, np.float32)
    parts.write(cycle, 0, ids=IDS[start:stop], scores=part, problems={})
    assert scores.count() == ROWS + 2  # 1 and 2 are in the part now
    assert scores.top(2)["index"].tolist() == [0, 1]
    assert scores.top(3, offset=ROWS)["index"].tolist() == [3 * ROWS, 999]
    assert scores.histogram(10)[0].tolist() == [
        0,
        0,
        0,
        0,
        0,
        0,
        2,
        ROWS,
        0,
        0,
    ]  # 0.7 is a bit less in float32
    assert (scores.n_problems, len(scores.problems())) == (0, 0)
    fill(parts, cycle, values[1])
    assert scores.count() == N - 2


def test_the_highest_of_a_cycle_are_found_in_its_parts(parts, values):
    cycle = parts.cycles()[1]
    for n in (0, 1, 30, 200, 5000):
        assert parts.highest(cycle, n).tolist() == order(values[1])[:n].tolist()


def test_the_highest_are_also_among_those_that_are_scored_before_their_parts(tmp_path, values):
    parts = Parts.create(tmp_path / "few", fingerprint="ab", n_images=N, spec={}, part_rows=ROWS)
    cycle = parts.begin("k", "")
    parts.write(cycle, 1, ids=IDS[128:256], scores=values[0][128:256], problems={})
    early = np.array([5, 130, 600])
    parts.write_first(cycle, early, [IDS[i] for i in early], np.array([0.5, 1, 0.9], np.float32))
    then = values[0].copy()
    then[:128] = then[256:] = np.nan
    then[[5, 600]] = [0.5, 0.9]
    assert parts.highest(cycle, 40).tolist() == order(then)[:40].tolist()


def test_many_threads_ask_at_once(parts, values):
    scores = ArchiveScores(parts)
    with ThreadPoolExecutor(6) as executor:
        found = list(executor.map(lambda k: scores.top(3, offset=k)["index"].tolist(), range(40)))
    assert found == [order(values[1])[k : k + 3].tolist() for k in range(40)]


def test_what_makes_no_sense_is_refused(parts, tmp_path):
    scores = ArchiveScores(parts)
    for bad in ({"n": -1}, {"offset": -1}, {"least": 0.6, "most": 0.5}, {"most": 2.0}):
        with pytest.raises(ConfigError):
            scores.top(**bad)
    with pytest.raises(ConfigError, match="bins=0"):
        scores.histogram(0)
    with pytest.raises(NotTrainedError, match="no earlier cycle"):
        ArchiveScores(parts, parts.cycles()[0]).rising()
    empty = Parts.create(tmp_path / "empty", fingerprint="ab", n_images=5, spec={})
    empty.begin("k", "")
    with pytest.raises(NotTrainedError, match="no scores in"):
        ArchiveScores(empty)


def test_without_duckdb_the_message_is_the_line_to_type(parts, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'amatch-widgets\[archive\]'"):
        ArchiveScores(parts)
