"""The public names are what they say, and no more."""

from __future__ import annotations

import importlib
import pkgutil
import types

import pytest

import amatch_widgets

MODULES = sorted(m.name for m in pkgutil.walk_packages(amatch_widgets.__path__, "amatch_widgets."))


def test_every_public_name_of_the_package_exists_and_is_listed_by_dir():
    missing = [name for name in amatch_widgets.__all__ if not hasattr(amatch_widgets, name)]
    assert missing == []
    assert set(amatch_widgets.__all__) <= set(dir(amatch_widgets))


def test_the_public_names_are_sorted_and_unique():
    assert list(amatch_widgets.__all__) == sorted(set(amatch_widgets.__all__))


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        amatch_widgets.no_such_name  # noqa: B018


def test_every_listed_error_has_the_one_base():
    errors = importlib.import_module("amatch_widgets.errors")
    assert all(issubclass(getattr(errors, name), errors.AmatchError) for name in errors.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_lists_its_public_names(name):
    module = importlib.import_module(name)
    public = getattr(module, "__all__", [] if hasattr(module, "__path__") else None)
    assert public is not None, f"{name} has no __all__"
    assert [n for n in public if not hasattr(module, n)] == []
    own = {
        n
        for n, value in vars(module).items()
        if not n.startswith("_")
        and isinstance(value, type | types.FunctionType)
        and value.__module__ == module.__name__
    }
    assert own <= set(public)
