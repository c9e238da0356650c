"""What is told to other programs by SAMP: a hub of astropy's on loopback, and clients that listen."""

from __future__ import annotations

import queue
import socket
import sys
import threading
import time
import warnings
from urllib.parse import urlparse
from urllib.request import url2pathname
from xmlrpc.server import SimpleXMLRPCServer

import pytest
from astropy.io.votable import parse
from astropy.utils.exceptions import AstropyDeprecationWarning

from amatch_widgets.demo import DemoSource
from amatch_widgets.errors import LabelError, MissingExtraError, StateError
from amatch_widgets.session import samp as module
from amatch_widgets.session.samp import Hub
from tests.session.helper import WAIT_S

with warnings.catch_warnings():
    warnings.simplefilter("ignore", AstropyDeprecationWarning)  # it moves to pyvo; the protocol stays
    from astropy.samp import SAMPHubServer, SAMPIntegratedClient


class Placed(DemoSource):
    """A sky of which every other image has a position."""

    def position(self, index):
        return None if index % 2 else (float(index), -float(index) / 2)


@pytest.fixture
def lock(tmp_path, monkeypatch):
    """Give the place of a hub's lock file, which is not that of the user."""
    path = tmp_path / "lo ck" / "samp"
    path.parent.mkdir()
    monkeypatch.setenv("SAMP_HUB", f"std-lockurl:{path.as_uri()}")
    return path


@pytest.fixture
def hub(lock, monkeypatch):
    # The hub asks its own lock file, and does not decode the address of it.
    monkeypatch.setenv("HOME", str(lock.parent))
    monkeypatch.delenv("SAMP_HUB")
    server = SAMPHubServer(web_profile=False, addr="127.0.0.1", mode="single")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def listener(hub):
    """Connect programs that take messages of some kinds, and put what they get into a queue."""
    clients = []

    def connect(name, *kinds):
        client = SAMPIntegratedClient(name=name, addr="127.0.0.1", callable=True)
        client.connect(hub=hub)
        clients.append(client)
        got = queue.Queue()
        for kind in kinds:
            client.bind_receive_notification(
                kind, lambda _key, _sender, kind, params, _extra: got.put((kind, params))
            )
        return got

    yield connect
    for client in clients:
        client.disconnect()


@pytest.fixture
def session(make_session):
    session = make_session(Placed(60, size=32, prevalence=0.2))
    session.embed()
    session.wait(WAIT_S)
    return session


def test_the_shortlist_is_sent_to_all_programs_that_take_tables(session, listener):
    topcat = listener("topcat", "table.load.votable")
    other = listener("<b>other</b>", "table.load.votable", "coord.pointAt.sky")
    listener("ds9", "image.load.fits")
    assert sorted(session.send(7)) == ["<b>other</b>", "topcat"]
    for got in (topcat, other):
        kind, values = got.get(timeout=WAIT_S)
        assert kind == "table.load.votable"
        assert values["name"] == "run, best 7"
        table = parse(url2pathname(urlparse(values["url"]).path)).get_first_table().to_table()
        assert list(table["id"]) == session.top(7)["id"].tolist()


def test_a_table_and_a_place_are_sent_to_one_program(session, listener):
    kinds = ("table.load.votable", "coord.pointAt.sky")
    topcat, aladin = listener("TOPCAT", *kinds), listener("Aladin", *kinds)
    assert session.send(3, to="topcat") == ["TOPCAT"]
    assert session.point_at(session.source.ids[4], to="Aladin") == ["Aladin"]
    assert aladin.get(timeout=WAIT_S) == ("coord.pointAt.sky", {"ra": "4.00000000", "dec": "-2.00000000"})
    assert topcat.get(timeout=WAIT_S)[0] == "table.load.votable"
    assert topcat.empty()


def test_the_hub_is_left_when_all_is_said(session, listener, hub):
    listener("TOPCAT", "table.load.votable")
    session.send(3)
    with pytest.raises(StateError, match="named 'Aladin'"):
        session.send(3, to="Aladin")
    assert len(hub._metadata) == 2  # the hub's own and the listener's


def test_programs_that_do_not_listen_are_told_apart(session, listener):
    with pytest.raises(
        StateError, match=r"No program that takes 'table\.load\.votable' is .* do: none\. Open TOPCAT"
    ):
        session.send(3)
    listener("TOPCAT", "table.load.votable")
    with pytest.raises(StateError, match=r"No program named 'Aladin' .*; those that do: 'TOPCAT'"):
        session.send(3, to="Aladin")


def test_without_a_hub_it_is_said_at_once_what_to_do(session, lock):
    with pytest.raises(StateError, match=r"No SAMP hub runs here.*Open TOPCAT, Aladin"):
        session.send(3)
    lock.write_text("# nothing\n")
    with pytest.raises(StateError, match=r"it lacks samp\.hub\.xmlrpc\.url, samp\.secret"):
        session.send(3)
    assert not (session.path / "sent.vot").exists()


@pytest.mark.parametrize("is_listening", [False, True])
def test_a_hub_that_died_or_hangs_is_not_waited_for(lock, monkeypatch, is_listening):
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.2)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if is_listening:
            server.listen()  # and never answers
        port = server.getsockname()[1]
        lock.write_text(f"samp.secret=x\nsamp.hub.xmlrpc.url=http://127.0.0.1:{port}/\n")
        started = time.monotonic()
        with pytest.raises(StateError, match="The SAMP hub of this machine does not answer"):
            Hub()
    assert time.monotonic() - started < 10


def test_an_answer_that_is_none_is_refused(lock):
    with SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False) as server:
        server.register_function(lambda _secret: "hello", "samp.hub.register")
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        lock.write_text(f"samp.secret=x\nsamp.hub.xmlrpc.url=http://127.0.0.1:{server.server_address[1]}/\n")
        with pytest.raises(StateError, match="something else than a key"):
            Hub()
        thread.join(WAIT_S)


def test_a_server_that_is_no_hub_is_refused(lock):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/xml\r\n\r\n<html><br>")

        thread = threading.Thread(target=answer)
        thread.start()
        lock.write_text(f"samp.secret=x\nsamp.hub.xmlrpc.url=http://127.0.0.1:{server.getsockname()[1]}/\n")
        with pytest.raises(StateError, match="does not answer"):
            Hub()
        thread.join(WAIT_S)
    lock.write_text("samp.secret=x\nsamp.hub.xmlrpc.url=ftp://127.0.0.1/\n")
    with pytest.raises(StateError, match=r"'ftp://127\.0\.0\.1/', which is none of http"):
        Hub()


def test_a_hub_elsewhere_is_refused(session, monkeypatch):
    monkeypatch.setenv("SAMP_HUB", "std-lockurl:http://example.org/samp")
    with pytest.raises(StateError, match="allowed is std-lockurl:file:///"):
        session.send(3)


def test_an_image_without_a_position_cannot_be_pointed_at(session):
    with pytest.raises(LabelError, match="is not known"):
        session.point_at(session.source.ids[1])
    with pytest.raises(LabelError, match="Unknown image id"):
        session.point_at("nowhere")


def test_without_astropy_the_line_to_type_is_said(session, listener, monkeypatch):
    listener("TOPCAT", "table.load.votable")
    monkeypatch.setitem(sys.modules, "astropy.table", None)
    with pytest.raises(MissingExtraError, match="pip install 'amatch-widgets"):
        session.send(3)
