"""Why an image scored so: asked of the instant tier, on the worker's thread, whatever runs there."""

from __future__ import annotations

import numpy as np
import pytest

from amatch_widgets.errors import ImageReadError, LabelError, NotTrainedError, StateError
from amatch_widgets.images.preprocess import Preprocess
from tests.session.helper import SKY, WAIT_S, Gate, holey, labels_of


def embedded(session):
    session.embed()
    session.wait(WAIT_S)
    return session


def model_of(session):
    """All parameters of the trained model, in one row."""
    state = session._engine._trainer.average.state_dict()
    return np.concatenate([np.ravel(tensor.numpy()) for tensor in state.values()])


def test_it_is_explained_from_the_score_that_is_shown(make_session):
    session = embedded(make_session(test_share=0))
    best = session.source.ids[session.ranking()[0]]
    found = session.explain(best)
    assert (found.image_id, found.tier, found.patch_px) == (best, "instant", (11, 6))
    assert (found.losses.shape, found.losses.dtype) == ((32, 32), np.float32)
    assert np.isfinite(found.losses).all()
    assert found.losses.any()
    assert found.score == pytest.approx(session.standing(best)[0], abs=0.02)
    assert 0 <= found.score_without <= found.score
    assert repr(best) in repr(found)
    with pytest.raises(ValueError, match="read-only"):
        found.losses[0] = 0


def test_the_same_image_and_labels_give_the_same_map_and_other_labels_another(make_session):
    session = embedded(make_session(test_share=0))
    first, again = session.explain("00"), session.explain("00")
    np.testing.assert_array_equal(first.losses, again.losses)
    rare = next(i for i, label in SKY.truth.items() if label == "anomaly" and i not in labels_of(session))
    session.label({rare: "anomaly"})
    assert not np.array_equal(first.losses, session.explain("00").losses)


def test_a_coarse_map_has_the_large_parts_alone(make_session):
    session = embedded(make_session(test_share=0))
    coarse, fine = session.explain("00", coarse=True), session.explain("00")
    assert (coarse.patch_px, fine.patch_px) == ((11,), (11, 6))
    assert (coarse.logit, coarse.losses.shape) == (fine.logit, fine.losses.shape)
    assert coarse.losses.any()


@pytest.mark.parametrize("channels", [1, 5])
def test_any_number_of_channels_is_explained(make_session, channels):
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, channels), dtype=np.uint8)
    images[3] = 40  # constant
    labels = {"00": "anomaly", "01": "normal"}
    session = embedded(make_session(images, labels=labels, image=Preprocess(size=32), test_share=0))
    assert session.explain("00").losses.shape == (32, 32)
    assert np.abs(session.explain("03").losses).max() < 1e-4


def test_without_anything_to_explain_it_says_what_to_do(make_session):
    session = make_session(labels=None)
    with pytest.raises(NotTrainedError, match=r"no embeddings yet.* session.embed\(\)"):
        session.explain("00")
    embedded(session)
    with pytest.raises(NotTrainedError, match="No anomaly is labelled yet"):
        session.explain("00")
    with pytest.raises(LabelError, match="Unknown image id 'x'"):
        session.explain("x")


def test_an_image_that_cannot_be_read_gives_its_reason(make_session):
    session = embedded(make_session(holey([3]), test_share=0))
    with pytest.raises(ImageReadError, match="it has a hole"):
        session.explain("03")
    assert session.state == "idle"


def test_embeddings_of_another_network_are_not_explained(make_session, monkeypatch):
    session = embedded(make_session(test_share=0))
    monkeypatch.setattr("amatch_widgets.session.embedder.digest", lambda _: "another")
    with pytest.raises(StateError, match="weights of the network are others"):
        session.explain("00")


def test_a_running_and_a_paused_training_end_as_if_nothing_had_been_asked(make_session, tmp_path):
    models = []
    for k, is_asked in enumerate((False, True)):
        session = embedded(make_session(path=tmp_path / str(k), test_share=0))
        gate = Gate(session)
        session.train(3)
        with gate:
            session.pause()
        if is_asked:
            assert session.explain("00").losses.any()
            assert session.state == "paused"
        session.resume()
        if is_asked:
            session.explain("01")
        session.wait(WAIT_S)
        models.append(model_of(session))
        session.close()
    np.testing.assert_array_equal(*models)


def test_a_closed_session_says_so(make_session):
    session = embedded(make_session(test_share=0))
    session.close()
    with pytest.raises(StateError, match="closed"):
        session.explain("00")
