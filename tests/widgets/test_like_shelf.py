"""More like this, and twins, where the gallery shows an archive."""

from __future__ import annotations

import pytest

from amatch_widgets.events import StateChanged
from tests.widgets.board import WAIT_S


@pytest.fixture
def board(board, session):
    session.embed()
    session.wait(WAIT_S)
    board.browse("sky-5")
    return board


def like(board, *indices):
    board.gallery.vue_do_similar({"serial": board.gallery.page["serial"], "indices": list(indices)})
    return [tile["id"] for tile in board.settle()["tiles"]]


def embed(board, session):
    """Press the button, and wait until all is there."""
    begun = []
    end = session.hub.subscribe(begun.append)
    board.gallery.vue_do_embed({})
    board.gallery._background.do("test", board.notify)
    board.until(lambda: StateChanged("running", "embed") in begun or board.messages)
    end()
    session.wait(WAIT_S)
    board.gallery.apply([StateChanged("idle")])


def test_before_anything_is_embedded_it_says_so_and_offers_it(board, session, survey):
    model = board.gallery.image_ids[4]
    assert board.gallery.can_similar
    assert like(board, 4) == [model]
    gallery = board.gallery
    assert gallery.similar_to == model
    assert gallery.among == "No image of sky-5 is embedded yet"
    assert gallery.offer == "embed all"
    embed(board, session)
    board.until(lambda: gallery.stale == "198 more embedded")
    assert gallery.offer == ""
    assert gallery.image_ids == (model,)  # no tile moves by itself
    gallery.vue_do_refresh({})
    board.settle()
    assert gallery.image_ids[0] == model
    assert list(gallery.image_ids[1:]) == [
        c.image_id for c in session.similar(model, 47, archive=survey.archive.name)
    ]
    assert gallery.among == "among 198 of 300 images, embedded for their scores"
    assert gallery.stale == ""
    reasons = [tile["reason"] for tile in gallery.page["tiles"][:3]]
    assert reasons == ["shown for its like", *(f"similar to {model}: rank {k}" for k in (1, 2))]
    scores = {i: survey.scores[int(i[-3:])] for i in gallery.image_ids}
    assert all(abs(float(t["score"]) - scores[t["id"]]) < 0.001 for t in gallery.page["tiles"])


def test_it_leads_back_to_where_it_was_left(board, session, survey):
    session.embed(survey.archive.name)
    session.wait(WAIT_S)
    board.gallery.turn(2)
    before = [tile["id"] for tile in board.settle()["tiles"]]
    first = like(board, 1, 3)
    assert first[:2] == [before[1], before[3]]
    assert board.gallery.similar_to == "2 images"
    assert board.press(5, "normal")
    assert session.labels.get(first[5]).reason == "similar to 2 images: rank 4"
    assert like(board, 7)[0] == first[7]  # from there to others
    board.gallery.turn(2)
    assert board.settle()["number"] == 2
    board.gallery.vue_do_back({})
    assert [tile["id"] for tile in board.settle()["tiles"]] == before
    assert (board.gallery.page["number"], board.gallery.similar_to, board.gallery.among) == (2, "", "")
    like(board, 0)
    board.choose(sort="lowest")
    assert (board.gallery.similar_to, board.gallery.page["tiles"][0]["id"]) == ("", survey.ids()[-1])
    board.gallery.browse()
    assert board.gallery.place == ""


def test_an_image_of_the_session_is_held_against_the_archive_that_is_looked_at(board, session, survey):
    session.embed(survey.archive.name)
    session.wait(WAIT_S)
    own = session.source.ids[3]
    board.gallery.show_similar(own)
    found = [tile["id"] for tile in board.settle()["tiles"]]
    assert found == [c.image_id for c in session.similar(own, 48, archive=survey.archive.name)]
    board.gallery.show_ranking()
    board.settle()
    board.browse()
    board.gallery.show_similar(own)
    assert board.gallery.image_ids[0] == own


def test_what_fails_is_said_and_the_list_stays(board, session, survey):
    session.embed(survey.archive.name)
    session.wait(WAIT_S)
    before = board.gallery.page
    session._tiers._space = None
    like(board, 0)
    assert "have no embeddings yet" in board.messages[-1][1]
    assert board.gallery.page == before
    session.archives[survey.archive.name].parts.root.rename(session.path / "gone")
    board.gallery.vue_do_embed({})
    board.until(lambda: len(board.messages) > 1)
    assert board.messages[-1][0] == "error"


def test_twins_in_an_archive_are_marked_and_labelled_together(board, session, survey, monkeypatch):
    session.embed(survey.archive.name)
    session.wait(WAIT_S)
    near = session.twins
    monkeypatch.setattr(session, "twins", lambda ids: near(ids, least=0.8))
    board.gallery.refresh()
    serial = board.settle()["serial"]
    board.until(lambda: board.gallery.twins.get("serial") == serial)
    expected = near(board.gallery.image_ids, least=0.8)
    assert expected
    twins = dict(zip(board.gallery.image_ids, board.gallery.twins["ids"], strict=True))
    assert {i: like for i, like in twins.items() if like} == {i: like[:20] for i, like in expected.items()}
    place = next(k for k, i in enumerate(board.gallery.image_ids) if twins[i])
    image_id = board.gallery.image_ids[place]
    board.gallery.vue_do_with_twins({"on": True})
    assert board.press(place, "normal")
    labelled = session.labels.current()
    assert all(labelled[i].label == "normal" for i in [image_id, *expected[image_id]])
    session.undo()
    assert not session.labels.current().keys() & {image_id, *expected[image_id]}
