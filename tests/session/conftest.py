from __future__ import annotations

import pytest


@pytest.fixture
def session(make_session):
    return make_session()
