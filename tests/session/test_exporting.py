"""What leaves a session by its file's ending, and what it says of where it comes from."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.io.votable import parse

from amatch_widgets.demo import DemoSource
from amatch_widgets.errors import ConfigError
from amatch_widgets.session.provenance import model_hash
from tests.session.helper import SKY, WAIT_S, cycle, judged_better


class Placed(DemoSource):
    """A sky of which every other image has a position."""

    def position(self, index):
        return None if index % 2 else (float(index), -float(index) / 2)


def embedded(session):
    session.embed()
    session.wait(WAIT_S)
    return session


def facts_of(session, tmp_path):
    path = session.export(tmp_path / "facts.parquet")
    return json.loads(pq.read_schema(path).metadata[b"amatch_widgets"])


def test_every_format_holds_the_same_images(make_session, tmp_path):
    session = embedded(make_session(Placed(60, size=32, prevalence=0.2)))
    best = session.top(9)
    files = {
        end: session.export(tmp_path / f"best{end}", n=9) for end in (".csv", ".parquet", ".vot", ".fits")
    }
    found = {
        ".csv": pd.read_csv(files[".csv"], dtype={"id": str})["id"].tolist(),
        ".parquet": pd.read_parquet(files[".parquet"])["id"].tolist(),
        ".vot": list(parse(files[".vot"]).get_first_table().to_table()["id"]),
        ".fits": fits.getdata(files[".fits"])["id"].tolist(),
    }
    assert all(ids == best["id"].tolist() for ids in found.values()), found
    positions = {i: (k, -k / 2) for k, i in enumerate(session.source.ids) if k % 2 == 0}
    assert {row.id: (row.ra, row.dec) for row in best.itertuples() if np.isfinite(row.ra)} == {
        i: positions[i] for i in best["id"] if i in positions
    }
    n_points = session.export(tmp_path / "best.reg", n=9).read_text().count("\npoint(")
    assert n_points == sum(i in positions for i in best["id"])


def test_an_unknown_format_and_a_negative_number_are_refused_at_once(make_session, tmp_path):
    session = make_session()
    with pytest.raises(
        ConfigError, match=r"'best\.xlsx' ends in '\.xlsx'; a shortlist is written as \.csv, "
    ):
        session.export(tmp_path / "best.xlsx", n=3)
    with pytest.raises(ConfigError, match="n is -1"):
        session.export(tmp_path / "best.csv", n=-1)
    assert not list(tmp_path.glob("best*"))


def test_a_file_says_what_session_and_images_it_is_of(make_session, tmp_path):
    session = embedded(make_session())
    facts = facts_of(session, tmp_path)
    assert facts["software"].startswith("amatch-widgets ")
    assert datetime.now(UTC) - datetime.fromisoformat(facts["date"]) < timedelta(minutes=1)
    assert (facts["session"], facts["source"], facts["n_images"]) == ("run", SKY.name, 60)
    assert facts["fingerprint"] == session.source.fingerprint()
    assert (facts["ranked_by"], facts["ranking"]) == ("instant", session.ranking_note)
    header = fits.getheader(session.export(tmp_path / "facts.fits"), "SHORTLIST")
    assert (header["SESSION"], header["RANKEDBY"], header["MODEL"]) == ("run", "instant", facts["model"])


def test_the_digest_changes_with_the_labels_and_comes_back_with_the_session(make_session, tmp_path):
    session = make_session()
    assert facts_of(session, tmp_path)["model"] == ""  # nothing ranks yet
    first = facts_of(embedded(session), tmp_path)["model"]
    assert len(bytes.fromhex(first)) == 16
    session.annotate(session.source.ids[0], star=True)
    session.query(1)  # waits for the fit
    assert facts_of(session, tmp_path)["model"] == first
    session.label({session.query(1)[0].image_id: "normal"})
    session.query(1)
    second = facts_of(session, tmp_path)["model"]
    assert second not in (first, "")
    session.close()
    assert facts_of(make_session(labels=None), tmp_path)["model"] == second


def test_the_digest_of_a_trained_model_is_of_its_checkpoint(make_session, tmp_path, monkeypatch):
    judged_better(monkeypatch)
    session = make_session()
    cycle(session)
    both = facts_of(session, tmp_path)
    assert both["ranked_by"] == "both"
    cycle(session)
    again = facts_of(session, tmp_path)["model"]
    assert again not in (both["model"], "")
    checkpoint = session._workspace.checkpoints()[-1]
    data = checkpoint.read_bytes()
    checkpoint.unlink()
    assert facts_of(session, tmp_path)["model"] == ""  # what it was can no longer be told
    checkpoint.write_bytes(data)
    assert facts_of(session, tmp_path)["model"] == again


def test_a_digest_depends_on_the_weight_between_the_tiers_and_on_nothing_that_does_not_rank(tmp_path):
    checkpoint = tmp_path / "a.safetensors"
    checkpoint.write_bytes(b"weights")
    alone = model_hash("deep", None, checkpoint, 0.0)
    assert alone == model_hash("deep", None, checkpoint, 2.0)
    assert model_hash("deep", None, None, 2.0) == model_hash(None, None, checkpoint, 2.0) == ""
    assert model_hash("both", None, checkpoint, 2.0) == ""  # without the other half


def test_labels_that_come_while_a_table_is_made_are_in_the_table_and_in_what_it_says(
    make_session, tmp_path, monkeypatch
):
    session = embedded(make_session())
    make, calls = type(session._board).shortlist, []

    def late(board, chosen):
        table = make(board, chosen)
        if not calls:
            session.label({session.source.ids[5]: "anomaly"})
            session.query(1)
        calls.append(len(table))
        return table

    monkeypatch.setattr(type(session._board), "shortlist", late)
    before = len(session.labels)
    path = session.export(tmp_path / "all.parquet")
    assert calls == [before, before + 1]
    file = pq.read_table(io.BytesIO(path.read_bytes()))
    assert len(file) == before + 1
    assert json.loads(file.schema.metadata[b"amatch_widgets"])["ranking"] == session.ranking_note


def test_each_row_says_what_ranked_it_and_what_each_tier_alone_says(make_session, tmp_path):
    session = embedded(make_session())
    before = pd.read_csv(session.export(tmp_path / "all.csv", n=60))
    assert before["rank_instant"].tolist() == before["rank"].tolist() == list(range(1, 61))
    assert set(before["rank_deep"]) == {0}
    cycle(session)
    path = session.export(tmp_path / "all.csv", n=60)  # its own table may be replaced
    after = pd.read_csv(path, dtype={"id": str})
    scores = session._board.deep[1]
    expected = [1 + int((scores > scores[session._index[i]]).sum()) for i in after["id"]]
    assert after["rank_deep"].tolist() == expected
    facts = facts_of(session, tmp_path)
    assert set(after["model"]) == {facts["model"]} != {""}
    assert list(after.columns) == [*session.top(1).columns, "model"]


def test_a_table_of_an_older_version_may_be_replaced(make_session, tmp_path):
    session = make_session()
    columns = "id,score,rank,label,tags,note,starred,ra,dec,labelled_by,labelled_at"
    (tmp_path / "old.csv").write_text(columns + "\r\n")
    assert "rank_deep" in session.export(tmp_path / "old.csv").read_text()
