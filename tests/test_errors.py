from __future__ import annotations

import inspect
import pickle

import pytest

from amatch_widgets import errors
from amatch_widgets.errors import AmatchError, ImageReadError, JournalError, LabelError, SourceError

_CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__]


def test_all_names_every_class_and_nothing_else():
    assert sorted(errors.__all__) == sorted(c.__name__ for c in _CLASSES)


@pytest.mark.parametrize("cls", _CLASSES)
def test_every_error_is_an_amatch_error_and_stands_in_the_tree(cls):
    assert issubclass(cls, AmatchError)
    assert cls.__name__ in errors.__doc__


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        ("SourceError", ValueError),
        ("ImageReadError", OSError),
        ("LabelError", ValueError),
        ("ConfigError", ValueError),
        ("WeightsError", RuntimeError),
        ("StateError", RuntimeError),
        ("WorkspaceError", OSError),
        ("MissingExtraError", ImportError),
    ],
)
def test_an_error_is_caught_by_the_builtin_that_a_user_expects(cls, builtin):
    assert issubclass(getattr(errors, cls), builtin)


def test_a_journal_error_is_a_label_error_and_an_unreadable_image_a_source_error():
    assert issubclass(JournalError, LabelError)
    assert issubclass(ImageReadError, SourceError)


def test_an_unreadable_image_is_named_with_its_reason():
    error = ImageReadError("a/<img onerror>.png", "the file is empty")
    assert error.image_id == "a/<img onerror>.png"
    assert str(error) == "Image 'a/<img onerror>.png' cannot be read: the file is empty"


def test_an_unreadable_image_survives_a_process_pool():
    error = pickle.loads(pickle.dumps(ImageReadError("a.png", "truncated")))
    assert (error.image_id, error.reason, str(error)) == (
        "a.png",
        "truncated",
        "Image 'a.png' cannot be read: truncated",
    )


@pytest.mark.parametrize("cls", [c for c in _CLASSES if c is not ImageReadError])
def test_the_message_is_the_text_as_it_was_given(cls):
    assert str(cls("what was found, and what to do")) == "what was found, and what to do"
