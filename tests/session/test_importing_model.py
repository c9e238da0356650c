"""A model of AnomalyMatch 2 in a session: it scores the images, ranks, and is judged by labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from amatch_widgets.errors import SourceError, StateError, WeightsError
from amatch_widgets.events import Message, ScoringProgress
from tests.score.anomalymatch import config, write_model
from tests.session.helper import SKY, WAIT_S, cycle, holey, judged_better


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model_iteration_2.safetensors"


def taken(session, path):
    session.import_model(path)
    session.wait(WAIT_S)
    return session


def test_it_scores_the_images_as_its_own_network_does_and_ranks(session, path, monkeypatch):
    monkeypatch.setattr("amatch_widgets.learn.inference.has_bfloat16", lambda _: False)
    network = write_model(path)
    seen = []
    session.hub.subscribe(seen.append)
    taken(session, path)
    images = np.stack([SKY.read(i) for i in range(60)])
    with torch.inference_mode():
        logits = network(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    np.testing.assert_allclose(session.scores, logits.softmax(1)[:, 1].numpy(), atol=1e-4)
    assert session.ranked_by == "deep"
    assert session.ranking_note == (
        "Ranked by the model behind 'model_iteration_2.safetensors' (AnomalyMatch 2)."
    )
    progress = [event for event in seen if isinstance(event, ScoringProgress)]
    assert (progress[-1].done, progress[-1].total) == (60, 60)


def test_its_scores_are_there_again_when_the_session_is_opened(session, path, make_session):
    write_model(path)
    scores = taken(session, path).scores
    session.close()
    again = make_session(labels=None)
    np.testing.assert_array_equal(again.scores, scores)
    assert again.scores_model == "model behind 'model_iteration_2.safetensors' (AnomalyMatch 2)"


def test_it_takes_part_once_labels_say_so_and_a_training_takes_its_place(session, path, monkeypatch):
    write_model(path)
    session.embed()
    session.wait(WAIT_S)
    assert taken(session, path).ranked_by == "instant"
    judged_better(monkeypatch)
    session.label({session.query(1)[0].image_id: "normal"})
    session.query(1)
    assert session.ranked_by == "both"
    with pytest.raises(StateError, match="Labels have tested"):
        session.import_model(path)
    cycle(session)
    with pytest.raises(StateError, match="trained a model of its own"):
        session.import_model(path)


def test_what_cannot_be_read_has_no_score_and_is_told(make_session, path):
    session = make_session(holey({3}))
    write_model(path)
    told = []
    session.hub.subscribe(lambda event: told.append(event) if isinstance(event, Message) else None)
    taken(session, path)
    assert np.flatnonzero(np.isnan(session.scores)).tolist() == [3]
    assert "1 of 60 images could not be read" in told[-1].text
    assert session.problems == {SKY.ids[3]: "it has a hole"}


def test_a_model_whose_weights_are_no_numbers_changes_nothing(session, path):
    write_model(path)
    tensors = load_file(path)
    tensors["eval_model.classifier.bias"] = torch.full((2,), torch.nan)
    with safe_open(path, "pt") as file:
        save_file(tensors, path.with_stem("broken"), metadata=file.metadata())
    session.import_model(path.with_stem("broken"))
    with pytest.raises(WeightsError, match="gives no image a score"):
        session.wait(WAIT_S)
    assert session.ranked_by is None


def test_a_model_that_cannot_be_used_or_is_of_other_bands_changes_nothing(session, path):
    write_model(path, fitsbolt_cfg=config(method="MIDTONES"))
    with pytest.raises(WeightsError, match="MIDTONES"):
        session.import_model(path)
    write_model(path, channels=5)
    with pytest.raises(SourceError, match=r"have 3 channels, and the model in .* has learnt from 5"):
        session.import_model(path)
    assert session.ranked_by is None
    assert not (session.path / "scores").exists()
