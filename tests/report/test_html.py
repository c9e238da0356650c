"""The report holds what the session knows, and nothing in it can do anything."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from amatch_widgets.demo import DemoSource
from amatch_widgets.errors import ConfigError, ImageReadError, WorkspaceError
from amatch_widgets.report.html import write_report

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7*7 }}",
    "' onmouseover='alert(1)",
    "</style></svg><iframe src=https://evil.example/>",
    "javascript:alert(1)",
    "http://evil.example/x.png",
    "half \udcff and \x00 and \x1b[31m",
]
# HTML of the page itself, and of matplotlib's SVG.
_TAGS = (
    "html head meta title style body main header h1 h2 p dl dt dd div small section figure figcaption img b "
    "span table thead tbody tr th td details summary svg g path rect text tspan use defs clippath"
)
TAGS = set(_TAGS.split())


class Hostile(DemoSource):
    """A sky with hostile names, of which two images cannot be read."""

    def __init__(self):
        super().__init__(60, size=32, prevalence=0.2)
        self.ids = [*HOSTILE, *self.ids[len(HOSTILE) :]]
        self.name = HOSTILE[1]

    def read(self, index, *, min_side=None):
        if index in (0, 1):
            raise ImageReadError(self.ids[index], f"a hole {HOSTILE[0]}")
        return super().read(index, min_side=min_side)


class Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.tags, self.attributes, self.words, self.open, self.in_style = [], [], [], [], False
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.remove(tag) if tag in self.open else None

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, "elements are nested"

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture
def hostile(make_session, rank):
    session = make_session(Hostile(), labels=None)
    session.label({HOSTILE[0]: "anomaly"}, by=HOSTILE[1], tags=HOSTILE, note=HOSTILE[2], reason=HOSTILE[0])
    session.label({HOSTILE[2]: "normal", HOSTILE[3]: "anomaly"}, by="", tags=HOSTILE, note=HOSTILE[1])
    session._notices.append(f"{HOSTILE[0]} is odd.")
    rank(session, [1 - k / 60 for k in range(60)])
    return session


def test_hostile_text_is_only_text(hostile, tmp_path):
    path = write_report(hostile, tmp_path / "report.html", n=20)
    page = Page(path)
    assert set(page.tags) <= TAGS
    assert page.open == []
    for tag, name, value in page.attributes:
        assert not name.startswith("on")
        if name in {"src", "href", "action", "formaction", "data", "xlink:href"}:
            assert (tag, value[:23]) == ("img", "data:image/jpeg;base64,") or re.fullmatch(r"#[\w-]+", value)
        if name == "style":
            assert not re.search(r"https?:|@import|expression", value)
            assert all(re.fullmatch(r"url\(#[\w-]+\)", u) for u in re.findall(r"url\([^)]*\)", value))
    said = page.text
    for text in HOSTILE[:7]:
        assert text in said
    assert "half \\udcff and \N{REPLACEMENT CHARACTER}" in said
    raw = path.read_text(encoding="utf-8").split("</style>", 1)[1]  # after the page's own style sheet
    assert "{{" not in raw
    assert "url(http" not in raw


def test_the_page_forbids_scripts_and_requests(hostile, tmp_path):
    page = Page(write_report(hostile, tmp_path / "report.html"))
    policy = next(value for tag, _, value in page.attributes if tag == "meta" and "default-src" in value)
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "unsafe-eval" not in policy
    head = (tmp_path / "report.html").read_text(encoding="utf-8").split("</head>")[0]
    assert not re.search(r"@import|https?://|url\(", head)


def test_ids_are_unique_so_that_each_figure_keeps_its_own_marks(hostile, tmp_path):
    page = Page(write_report(hostile, tmp_path / "report.html"))
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = {value[1:] for tag, name, value in page.attributes if tag == "use" and name == "href"}
    assert used
    assert used <= set(ids)


def test_it_says_who_labelled_what_and_what_it_rests_on(make_session, rank, look, tmp_path):
    session = make_session()
    labelled = look(session, "an" * 8)
    session.label({labelled[0]: None}, by="Bob", note="a slip")
    rank(session)
    page = Page(session.report(tmp_path / "report.html", n=5))
    said = page.text
    assert said.count("Ada") >= 16
    assert "taken back" in said
    assert "a slip" in said
    assert "given at the start" in said
    assert session.outlook in said
    assert session.source.fingerprint() in said
    assert repr(session.metrics.auroc) in said
    for name in (
        *session.config.to_dict(),
        *session.image.to_dict(),
        "torch",
        "timm",
        "Python",
        "matplotlib",
    ):
        assert name in said
    pictures = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert len(pictures) == 5
    best = session.top(5)
    assert all(
        f" {score:.3f} " in said and image_id in said
        for image_id, score in zip(best["id"], best["score"], strict=True)
    )


def test_the_journal_has_the_stars_and_what_was_only_starred_has_no_label_taken_back(make_session, tmp_path):
    session = make_session(labels=None)
    ids = session.source.ids
    session.annotate(ids[0], by="Ada", star=True, note="odd one")
    session.label({ids[1]: "anomaly"}, by="Ada")
    session.label({ids[1]: None}, by="Ada")
    said = Page(session.report(tmp_path / "report.html")).text
    assert "time (UTC) image label star by tags" in said
    assert re.search(rf"{ids[0]} +★ Ada +odd one", said)
    assert re.search(rf"{ids[1]} ◆ anomaly +Ada", said)
    assert said.count("taken back") == 2  # the table's head and one line
    assert re.search(r"first \(UTC\) last \(UTC\) Ada 1 0 1 ", said)


def test_long_tables_are_folded_and_short_ones_are_not(make_session, look, tmp_path):
    session = make_session()
    look(session, "n")
    assert ("details", "open", "") in Page(session.report()).attributes
    look(session, "an" * 10)
    attributes = Page(session.report()).attributes
    assert ("details", "open", "") not in attributes
    assert (session.path / "report.html").is_file()


def test_of_very_many_labels_the_last_are_listed_and_it_is_said(make_session, monkeypatch, tmp_path):
    monkeypatch.setattr("amatch_widgets.report.html._MOST_ROWS", 7)
    session = make_session()
    said = Page(write_report(session, tmp_path / "r.html")).text
    assert "The last 7 of 12 changes; all of them are in labels.jsonl" in said


def test_problems_are_listed_with_their_reason(hostile, tmp_path):
    said = Page(write_report(hostile, tmp_path / "report.html")).text
    assert "2 images could not be read" in said
    assert "The highest 50 of 60 images, with rank, score and label. 2 images cannot be read" in said
    assert f"a hole {HOSTILE[0]}" in said
    assert f"{HOSTILE[0]} is odd." in said


def test_a_fresh_session_without_labels_scores_or_embeddings_has_its_report(make_session, tmp_path):
    said = Page(write_report(make_session(labels=None), tmp_path / "report.html")).text
    assert "No image was labelled yet." in said
    assert "Nothing is ranked yet." in said
    assert "Nothing is scored yet" in said
    assert "nothing was looked at yet" in said
    assert "too few to say" in said


def test_the_same_session_gives_the_same_bytes(hostile, tmp_path):
    first = write_report(hostile, tmp_path / "a.html").read_bytes()
    assert write_report(hostile, tmp_path / "b.html").read_bytes() == first
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != "") == ["a.html", "b.html"]


@pytest.mark.parametrize("name", ["labels.csv", "labels.jsonl", "report", "a.html.png"])
def test_only_an_html_file_is_written(make_session, tmp_path, name):
    with pytest.raises(ConfigError, match=r"end in '\.html'"):
        write_report(make_session(labels=None), tmp_path / name)


def test_what_cannot_be_written_is_said_and_leaves_the_old_report(make_session, tmp_path):
    session = make_session(labels=None)
    (tmp_path / "taken.html").mkdir()
    with pytest.raises(WorkspaceError, match="The report cannot be written to"):
        write_report(session, tmp_path / "taken.html")
    with pytest.raises(WorkspaceError, match="The report cannot be written to"):
        write_report(session, tmp_path / "bad\0name.html")


def test_a_negative_number_of_candidates_is_refused(make_session, tmp_path):
    with pytest.raises(ConfigError, match="n is -1"):
        write_report(make_session(labels=None), tmp_path / "r.html", n=-1)
