"""What the gallery asks of a list of images: of the session's own and of an archive's alike."""

from __future__ import annotations

import numpy as np
import pytest

from amatch_widgets.session import Filter
from amatch_widgets.widgets.archive_shelf import ArchiveShelf
from amatch_widgets.widgets.shelf import Shelf


class ImageListContract:
    """`make(sort, show, only)` makes a list, `ids` are all of it by score, `rated` their scores."""

    def test_pages_follow_each_other_and_each_image_comes_once(self, make, ids, rated):
        made = make("highest", "all")
        pages = [made.take(number, 48) for number in range(5)]
        assert [t.image_id for page in pages for t in page.tiles][: len(ids)] == ids
        assert [t.score for t in pages[0].tiles] == pytest.approx(rated[:48])
        for number, page in enumerate(pages):
            assert (page.number, page.first, page.total, page.n_pages) == (number, 48 * number, len(ids), 5)
        assert pages[1].tiles[0].reason.endswith(f"highest: rank 49 of {len(ids)}{made.what}")

    def test_numbers_beyond_the_ends_give_the_page_there(self, make, ids):
        made = make("highest", "all")
        assert made.take(-3, 48).number == 0
        last = made.take(99, 48)
        assert (last.number, last.tiles[-1].image_id) == (4, ids[-1])

    def test_the_page_ahead_is_known(self, make, ids):
        made = make("highest", "all")
        made.use(made.take(0, 24))
        assert list(made.ahead(24)) == ids[24:48]

    def test_an_image_is_found_on_its_page(self, make, ids):
        made = make("highest", "all")
        made.use(made.take(0, 24))
        assert made.find([ids[60]], 24) == 2
        assert make("highest", "all", Filter(most=0.5)).find([ids[0]], 24) is None

    def test_an_image_is_found_by_its_id_and_the_next_one_after_it(self, make, ids):
        made = make("highest", "all")
        own = [i.rpartition("::")[2] for i in ids]
        assert made.seek(own[70], -1) == 70
        with_7 = [k for k, i in enumerate(own) if "7" in i]
        assert made.seek("7", with_7[1]) == with_7[2]
        assert made.seek("x", 0) is None

    def test_labels_move_no_tile_until_the_list_is_made_anew(self, make, ids, session):
        made = make("highest", "unlabelled")
        before = made.take(0, 24)
        made.use(before)
        label = [t.image_id for t in before.tiles[:2]]
        session.label(dict.fromkeys(label, "normal"))
        assert [t.image_id for t in made.take(0, 24).tiles] == [t.image_id for t in before.tiles]
        assert made.find([label[1]], 24) == 0
        anew = [t.image_id for t in make("highest", "unlabelled").take(0, 24).tiles]
        assert anew[:22] == [t.image_id for t in before.tiles][2:]
        recent = make("recent", "labelled").take(0, 24)
        assert [t.image_id for t in recent.tiles[:2]] == label[::-1]

    def test_a_filter_holds(self, make, ids, rated):
        only = Filter(least=0.2, most=0.7, contains="4")
        expected = [
            i for i, s in zip(ids, rated, strict=True) if 0.2 <= s <= 0.7 and "4" in i.rpartition("::")[2]
        ]
        page = make("highest", "all", only).take(0, 96)
        assert [t.image_id for t in page.tiles] == expected[:96]
        assert page.total == len(expected)
        assert "and filtered" in page.tiles[0].reason

    def test_a_list_of_nothing_is_a_page(self, make):
        page = make("highest", "all", Filter(contains="no such")).take(3, 24)
        assert (page.number, page.n_pages, page.total, list(page.tiles)) == (0, 1, 0, [])

    def test_it_says_what_ranks_and_that_nothing_is_new(self, make):
        made = make("highest", "all")
        made.use(made.take(0, 24))
        assert "anked by" in made.note
        made.look()
        assert (made.news(), made.is_random(24), made.similar_to, made.title) == ("", False, "", "")
        assert made.uncover(24) is False


class TestOwnImages(ImageListContract):
    @pytest.fixture
    def make(self, session, scores):
        def make(sort, show, only=None):
            shelf = Shelf(session)
            shelf.rank(sort, show, only or Filter(), seed=0)
            shelf.what = ""
            return shelf

        return make

    @pytest.fixture
    def scores(self, ranked):
        return ranked(0)

    @pytest.fixture
    def ids(self, session, scores):
        return [session.source.ids[i] for i in np.argsort(-scores, kind="stable")]

    @pytest.fixture
    def rated(self, scores):
        return sorted(scores.tolist(), reverse=True)


class TestAnArchive(ImageListContract):
    @pytest.fixture
    def make(self, session, survey):
        def make(sort, show, only=None):
            shelf = ArchiveShelf(survey.archive, sort, show, only or Filter(), seed=0)
            shelf.what = " scored"
            return shelf

        return make

    @pytest.fixture
    def ids(self, survey):
        return survey.ids()

    @pytest.fixture
    def rated(self, survey):
        return sorted((float(s) for i, s in enumerate(survey.scores[:200]) if i % 100 != 7), reverse=True)

    def test_new_parts_are_news_and_come_with_a_list_made_anew(self, make, survey):
        made = make("highest", "all")
        assert made.take(0, 96).total == 198
        assert "200 of 300 images are scored" in made.note
        survey.write(2)
        assert made.news() == ""  # it is not looked for by itself
        made.look()
        assert made.news() == "More scores"
        assert made.take(0, 96).total == 198
        anew = make("highest", "all")
        assert [t.image_id for t in anew.take(0, 96).tiles] == survey.ids(300)[:96]
        assert "are scored" not in anew.note
        survey.cycle = survey.parts.begin("other", "Ranked by another.")
        survey.write(0)
        made.look()
        assert made.news() == "New scores (cycle 2)"

    def test_what_cannot_be_read_is_listed_with_the_reason(self, make, survey):
        tiles = make("highest", "problem").take(0, 24).tiles
        assert [(t.image_id.rpartition("::")[2], t.score, t.problem) for t in tiles] == [
            ("007", None, "torn"),
            ("107", None, "torn"),
        ]

    def test_what_is_labelled_is_counted_in_the_note(self, make, session, ids):
        made = make("highest", "all")
        made.take(0, 24)
        session.label({ids[0]: "anomaly", ids[1]: "normal", ids[2]: "normal"})
        assert "Labelled here: 1 ◆, 2 ●." in made.note
