"""More like this, and twins, among the images of an archive with the highest scores."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from amatch_widgets.demo import sky
from amatch_widgets.errors import ConfigError, LabelError, NotTrainedError, SourceError
from amatch_widgets.events import EmbeddingProgress, Message, ProblemFound
from amatch_widgets.images.array import ArraySource
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.session import comparing
from tests.session.helper import SKY, WAIT_S, Holey

SURVEY = sky(80, size=32, seed=5, prevalence=0.2)


def scored(session, archive=SURVEY):
    session.score(archive)
    session.wait(WAIT_S)
    return next(a for a in session.archives.values() if a.fingerprint == archive.fingerprint())


def embed(session, survey, n=100):
    """Embed the highest of an archive; return what was told."""
    events = []
    end = session.hub.subscribe(events.append)
    session.embed(survey.name, n=n)
    session.wait(WAIT_S)
    end()
    progress = [e for e in events if isinstance(e, EmbeddingProgress)]
    assert {e.archive for e in progress} == {survey.title}
    assert progress[-1].done == progress[-1].total
    return events


def highest(survey, n):
    return survey.parts.highest(survey.scores.cycle, n).tolist()


def there(session, survey):
    return session._comparing.embedded(survey)


@pytest.fixture
def session(make_session):
    session = make_session(test_share=0)
    session.embed()
    session.wait(WAIT_S)
    return session


@pytest.fixture
def survey(session):
    return scored(session)


def test_they_are_those_that_the_plain_dot_product_finds(session, survey):
    embed(session, survey, 50)
    assert sorted(there(session, survey).indices.tolist()) == sorted(highest(survey, 50))
    # By the network and projection of the session, without any of the code that is tested.
    everything = session._teaching.vectors([survey.id_of(i) for i in SURVEY.ids]).astype(np.float64)
    units = everything / np.linalg.norm(everything, axis=1, keepdims=True)
    model = highest(survey, 3)[2]
    cosines = units @ units[model]
    order = sorted((i for i in highest(survey, 50) if i != model), key=lambda i: -cosines[i])
    found = session.similar(survey.id_of(SURVEY.ids[model]), 12, archive=survey.title)
    assert [c.image_id for c in found] == [survey.id_of(SURVEY.ids[i]) for i in order[:12]]
    assert [c.reason for c in found] == [f"similar: cosine {cosines[i]:.2f}" for i in order[:12]]
    scores = survey.scores.of(order[:12])
    assert [c.score for c in found] == [scores[i] for i in order[:12]]
    assert len(session.similar(survey.id_of(SURVEY.ids[model]), 500, archive=survey.name)) == 49


def test_what_is_not_embedded_and_the_sessions_own_are_models_too(session, survey):
    embed(session, survey, 20)
    lowest = highest(survey, 80)[-1]
    assert lowest not in there(session, survey).indices
    models = [survey.id_of(SURVEY.ids[lowest]), survey.id_of(SURVEY.ids[highest(survey, 1)[0]]), SKY.ids[3]]
    vectors = np.concatenate([session._teaching.vectors(models[:2]), session._tiers.vectors(np.array([3]))])
    units = vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    of_it = there(session, survey)
    cosines = of_it.vectors.astype(np.float64) @ units.mean(0)
    cosines /= np.linalg.norm(of_it.vectors.astype(np.float64), axis=1)
    order = [i for i in of_it.indices[np.argsort(-cosines)].tolist() if i != highest(survey, 1)[0]]
    found = session.similar(models, 10, archive=survey.name)
    assert [c.image_id for c in found] == [survey.id_of(SURVEY.ids[i]) for i in order[:10]]


def test_the_highest_are_read_first_and_what_lies_together_is_read_together(session, survey, monkeypatch):
    read, stream = [], comparing.stream

    def listen(source, image, wanted, **options):
        wanted = [span.tolist() for span in wanted]
        read.extend(wanted)
        return stream(source, image, map(np.array, wanted), **options)

    monkeypatch.setattr(comparing, "stream", listen)
    monkeypatch.setattr(comparing, "_STEPS", (20, 40))
    embed(session, survey, 50)
    order = highest(survey, 50)
    assert read == [sorted(order[:20]), sorted(order[20:40]), sorted(order[40:])]


def test_after_a_stop_it_goes_on_where_it_was(make_session, session, survey, monkeypatch):
    monkeypatch.setattr(comparing, "_STEPS", (20, 40))
    end = session.hub.subscribe(lambda e: session.stop() if isinstance(e, EmbeddingProgress) else None)
    session.embed(survey.name)
    session.wait(WAIT_S)
    end()
    before = there(session, survey)
    assert 0 < len(before) < 80
    assert session.n_embedded(survey.name) == len(before)
    assert session.similar(survey.id_of("07"), 5, archive=survey.name)  # among those that are there
    session.close()
    session = make_session(labels=None, test_share=0)
    (survey,) = session.archives.values()
    embed(session, survey)
    after = there(session, survey)
    assert after.indices[: len(before)].tolist() == before.indices.tolist()
    assert sorted(after.indices.tolist()) == list(range(80))


def test_another_cycle_makes_only_the_vectors_of_what_has_come_up(session, survey):
    embed(session, survey, 20)
    old = highest(survey, 20)
    session.label({i: label for i, label in list(SKY.truth.items())[-20:] if i not in session.labels})
    survey = scored(session)
    assert survey.scores.cycle.number == 2
    new = highest(survey, 20)
    assert set(new) != set(old)
    embed(session, survey, 20)
    indices = there(session, survey).indices.tolist()
    assert sorted(indices[:20]) == sorted(old)
    assert sorted(indices[20:]) == sorted(set(new) - set(old))


def test_vectors_of_another_preparation_are_not_used(session, survey):
    embed(session, survey, 20)
    session.prepare(Preprocess(size=32, stretch="asinh"))
    session.wait(WAIT_S)
    assert session.n_embedded(survey.name) == 0
    with pytest.raises(NotTrainedError, match=r"is embedded yet.*session.embed\('sky-5'\)"):
        session.similar(survey.id_of("07"), archive=survey.name)
    assert session.twins(survey.id_of("07")) == {}


def test_another_session_on_the_same_images_uses_them(make_session, session, survey, tmp_path):
    embed(session, survey, 20)
    session.close()
    other = make_session(path=tmp_path / "other", test_share=0)
    other.embed()
    other.wait(WAIT_S)
    survey = scored(other)
    assert other.n_embedded(survey.name) == 20


def test_twins_are_found_in_the_archive(session):
    images = np.stack([SURVEY.read(i) for i in range(60)])
    images[40], images[41] = images[3], np.roll(images[5], 1, axis=0)
    survey = scored(session, ArraySource(images))
    of_it = [survey.id_of(survey.source.ids[i]) for i in (3, 40, 5, 41)]
    assert session.twins(of_it) == {}
    embed(session, survey)
    own = SKY.ids[2]
    found = session.twins([*of_it, own], least=0.999)
    assert {i: found[i] for i in of_it[:2]} == {of_it[0]: [of_it[1]], of_it[1]: [of_it[0]]}
    assert session.twins(of_it, least=0.2)[of_it[2]]
    assert set(session.twins(own, least=0.5).get(own, [])) <= set(SKY.ids)
    assert session._archives.of(of_it[1]).standing(of_it[1]) is not None  # it can be labelled at once


def test_images_that_cannot_be_read_any_more_are_told_and_have_no_vector(session):
    source = Holey(60, size=32, seed=3, prevalence=0.2)
    survey = scored(session, source)
    source.bad = frozenset({3, 17})
    events = embed(session, survey)
    told = {e.image_id: e.reason for e in events if isinstance(e, ProblemFound)}
    assert told == {survey.id_of(i): "it has a hole" for i in ("03", "17")}
    (text,) = [e.text for e in events if isinstance(e, Message)]
    assert "2 of 60 images" in text
    assert "it has a hole" in text
    assert len(there(session, survey)) == 58
    source.bad = frozenset()
    embed(session, survey)
    assert len(there(session, survey)) == 60


def test_images_that_are_gone_end_it_and_what_is_there_stays(session, monkeypatch):
    source = Holey(60, size=32, seed=3, prevalence=0.2)
    survey = scored(session, source)
    embed(session, survey, 10)
    monkeypatch.setattr(comparing, "_LOST", 20)
    source.bad = frozenset(range(60))
    session.embed(survey.name)
    with pytest.raises(SourceError, match=r"None of the last images of 'sky-3' could be read.*it has a hole"):
        session.wait(WAIT_S)
    assert len(there(session, survey)) == 10


def test_what_cannot_be_done_is_said_before_anything_is(make_session, session, survey, tmp_path):
    with pytest.raises(LabelError, match="'nowhere' names 0 archives"):
        session.embed("nowhere")
    with pytest.raises(ConfigError, match="n=0"):
        session.embed(survey.name, n=0)
    with pytest.raises(NotTrainedError, match="No image of 'sky-5' is embedded yet"):
        session.similar(survey.id_of("07"), archive="sky-5")
    with pytest.raises(ConfigError, match="give one of them"):
        session.similar("07", archive="sky-5", among=["08"])
    with pytest.raises(LabelError, match="Unknown image id"):
        session.similar("no such", archive="sky-5")
    shutil.rmtree(survey.folder / "cycle=0001")
    with pytest.raises(NotTrainedError, match="Nothing of 'sky-5' is scored yet"):
        session.embed("sky-5")


def test_without_embeddings_of_its_own_a_session_says_so(session, survey):
    session._tiers._space = None
    with pytest.raises(NotTrainedError, match="session's own images have no embeddings yet"):
        session.embed(survey.name)
    with pytest.raises(NotTrainedError, match="session's own images have no embeddings yet"):
        session.similar(survey.id_of("07"), archive=survey.name)
    assert session.twins(survey.id_of("07")) == {}
