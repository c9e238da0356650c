from __future__ import annotations

import pytest
from threadpoolctl import ThreadpoolController

from amatch_widgets.learn._threads import one_thread


def n_threads():
    return {library.num_threads for library in ThreadpoolController().select(user_api="blas").lib_controllers}


@pytest.fixture
def two_threads():
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        yield


@pytest.mark.usefixtures("two_threads")
def test_the_limit_holds_within_and_no_longer():
    with one_thread():
        assert n_threads() == {1}
    assert n_threads() == {2}


@pytest.mark.usefixtures("two_threads")
def test_the_limit_is_lifted_after_an_error():
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert n_threads() == {2}
