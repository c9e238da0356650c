"""A training so small that a test of a whole cycle takes a fraction of a second."""

from __future__ import annotations

import contextlib
import logging

import pytest
from hypothesis import settings

from amatch_widgets.demo import sky
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.learn.config import TrainConfig
from amatch_widgets.session import Session

# The same examples each time, and a busy machine is no error.
settings.register_profile("amatch", derandomize=True, deadline=None)
settings.load_profile("amatch")

_LIGHT = {
    "backbone": "test_resnet",  # timm's own for tests: 0.4 million parameters
    "weights": "random",
    "steps": 2,
    "batch": 4,
    "unlabelled_ratio": 2,
    "freeze_norm": False,
    "memory_mb": 16,
    "score_batch": 32,
    "embed_px": 32,
    "device": "cpu",
}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Keep embeddings in a folder of the test's own: none are there from another test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("AMATCH_CACHE", str(folder))
    return folder


@pytest.fixture
def light():
    """Make the options of a light training, some of them changed."""
    return lambda **changes: TrainConfig(**{**_LIGHT, **changes})


@pytest.fixture
def make_session(tmp_path, light):
    """Open light sessions on a small sky, by default in one folder; all are closed in the end."""
    with contextlib.ExitStack() as stack:

        def make(source=None, *, path=None, labels="some", train=None, image=None, **changes):
            source = sky(60, size=32, prevalence=0.2) if source is None else source
            session = Session(
                source,
                path=tmp_path / "run" if path is None else path,
                labels=source.first_labels(4, 8) if labels == "some" else labels,
                train=light(**changes) if train is None else train,
                image=Preprocess(size=32) if image is None else image,
            )
            return stack.enter_context(session)

        yield make


@pytest.fixture(scope="session")
def object_store():
    """Start an object store; give the options to reach it."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - takes a second

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {"key": "tester", "secret": "not-so-secret", "endpoint_url": f"http://{host}:{port}"}
    server.stop()
