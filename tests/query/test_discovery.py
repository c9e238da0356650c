"""What the looks have brought, against journals counted by hand."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import nbinom

from amatch_widgets.labels import Label
from amatch_widgets.labels.reason import AT_THE_START, from_table, merged_from
from amatch_widgets.query.discovery import discovery, forecast


def line(image_id, label, reason="gallery, highest"):
    return Label(image_id=image_id, label=label, reason=reason)


def found(*lines):
    return discovery(lines).found.tolist()


def test_without_labels_there_is_nothing():
    nothing = discovery([])
    assert (nothing.n_looks, nothing.n_found, nothing.last(24)) == (0, 0, 0)
    assert nothing.next_page() is None
    assert nothing.outlook == "Too few looks to say what the next will bring (0; 12 are needed)."


def test_anomalies_add_up_in_the_order_of_the_looks():
    assert found(line("a", "normal"), line("b", "anomaly"), line("c", "normal"), line("d", "anomaly")) == [
        0,
        1,
        1,
        2,
    ]


def test_a_changed_label_counts_as_it_is_now_at_its_first_place():
    assert found(line("a", "normal"), line("b", "normal"), line("a", "anomaly")) == [1, 1]
    assert found(line("a", "anomaly"), line("b", "normal"), line("a", "normal")) == [0, 0]


def test_a_label_taken_back_is_no_look_until_it_is_given_again():
    assert found(line("a", "anomaly"), line("b", "anomaly"), line("a", None)) == [1]
    assert found(line("a", "anomaly"), line("b", "normal"), line("a", None), line("a", "anomaly")) == [1, 1]


@pytest.mark.parametrize(
    "reason", [AT_THE_START, from_table("labels.csv"), merged_from("ben", "top: rank 1")]
)
def test_what_was_known_before_is_no_look_also_when_it_is_changed_later(reason):
    lines = [line("k", "anomaly", reason), line("m", "normal", reason), line("a", "anomaly")]
    known = discovery([*lines, line("m", "anomaly")])
    assert known.found.tolist() == [1]
    assert (known.n_given, known.n_given_anomalies) == (2, 2)


def test_a_table_that_takes_a_label_back_does_not_make_the_image_known():
    lines = [line("a", None, from_table("l.csv")), line("a", "anomaly")]
    assert found(*lines) == [1]


def test_the_session_writes_the_reasons_that_are_no_looks(make_session, tmp_path):
    session = make_session()  # with 4 anomalies and 8 normals given at the start
    unlabelled = [i for i in session.source.ids if i not in session.labels]
    (tmp_path / "l.csv").write_text(f"id,label\n{unlabelled[0]},anomaly\n")
    session.import_labels(tmp_path / "l.csv")
    session.label({unlabelled[1]: "anomaly"})
    session.label({unlabelled[2]: "normal"}, reason="top: rank 1 of 48 unlabelled")
    now = session.discovery
    assert (now.found.tolist(), now.n_given, now.n_given_anomalies) == ([1, 1], 13, 5)


def test_the_last_looks_are_counted_from_the_end():
    marks = "nanaann"
    now = discovery(line(str(k), {"a": "anomaly", "n": "normal"}[mark]) for k, mark in enumerate(marks))
    assert [now.last(n) for n in range(9)] == [0, 0, 0, 1, 2, 2, 3, 3, 3]
    assert repr(now) == "Discovery(3 anomalies found in 7 looks)"


def test_the_next_page_rests_on_the_last_48_looks():
    easy, hard = [line(f"e{k}", "anomaly") for k in range(30)], [line(f"h{k}", "normal") for k in range(48)]
    page = discovery(easy + hard).next_page()
    assert (page.n_looks, page.n_found, page.low, page.middle) == (48, 0, 0, 0)
    assert str(page) == "Another 24 images are likely to bring none (95 %: 0 to 2); the last 48 brought none."


@pytest.mark.parametrize(("n_found", "n_looks"), [(0, 12), (1, 48), (4, 48), (7, 24), (24, 48)])
def test_the_forecast_is_the_negative_binomial_of_scipy(n_found, n_looks):
    page = forecast(n_found, n_looks, 24)
    expected = nbinom(n_found + 0.5, n_looks / (n_looks + 24)).ppf([0.025, 0.5, 0.975])
    assert [page.low, page.middle, page.high] == [min(24, round(k)) for k in expected]


def test_no_page_brings_more_than_it_holds():
    page = forecast(48, 48, 24)
    assert page.low <= page.middle <= page.high == 24


_lines = st.lists(
    st.builds(
        line,
        st.sampled_from("abcde"),
        st.sampled_from(["anomaly", "normal", None]),
        st.sampled_from(["", "top", AT_THE_START, from_table("l.csv")]),
    ),
    max_size=30,
)


@settings(max_examples=300)
@given(_lines)
def test_each_image_counts_once_and_as_what_it_is_now(lines):
    now = {entry.image_id: entry.label for entry in lines}
    result = discovery(lines)
    assert result.n_looks + result.n_given == sum(label is not None for label in now.values())
    assert result.n_found + result.n_given_anomalies == sum(label == "anomaly" for label in now.values())
    assert {b - a for a, b in itertools.pairwise([0, *result.found])} <= {0, 1}
