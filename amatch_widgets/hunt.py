"""A whole hunt without a person: a known truth answers for each image that would be shown.

For the demo, tests and benchmarks, where the true label of every image is known. It uses the public
calls of `Session` alone, in the order in which a person would: train or not, look at a page, label it.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from amatch_widgets.errors import ConfigError, TooFewLabelsError
from amatch_widgets.labels import ANOMALY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from amatch_widgets.session import Session

__all__ = ["PageFound", "hunt_with_truth", "pages_to_pandas"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFound:
    """What one page of images brought.

    Parameters
    ----------
    page : int
        Number of the page, from 1.
    step : int
        Training steps done when the page was chosen; 0 when nothing was trained yet.
    ranked_by : str or None
        What ordered the page: "novelty", "instant", "deep" or "both"; see `Session.ranked_by`.
    shown : int
        Images on the page, all without a label until then.
    found : int
        Anomalies among them.
    by_chance : float
        Anomalies that a page drawn at random would hold on average.
    found_so_far : int
        Anomalies on this and all earlier pages. The examples known at the start do not count.
    looked_so_far : int
        Images on this and all earlier pages.
    n_hidden : int
        Anomalies that had no label before the first page: the most that can be found.
    """

    page: int
    step: int
    ranked_by: str | None
    shown: int
    found: int
    by_chance: float
    found_so_far: int
    looked_so_far: int
    n_hidden: int

    def to_dict(self) -> dict[str, Any]:
        """Give the fields as a JSON-able dict."""
        return asdict(self)


def hunt_with_truth(
    session: Session,
    truth: Mapping[str, str],
    *,
    pages: int = 5,
    per_page: int = 24,
    steps: int | None = None,
    strategy: Literal["top", "uncertain", "random", "mixed"] = "top",
    background: bool = False,
) -> Iterator[PageFound]:
    """Train, label a page by the truth, and again, until the pages are used up.

    Lazy: each page is worked on when the iterator is asked for it, on the caller's thread, while the
    training runs on the session's worker. A `KeyboardInterrupt` leaves the training running; stop it
    with ``session.stop()``.

    Parameters
    ----------
    session : Session
        It must be idle. With labels of both classes, unless `steps` is 0 or `background` is set.
    truth : mapping of str to str
        ``"anomaly"`` or ``"normal"`` for the id of every image of the session's source.
    pages : int, >= 1
        Pages to look at. Fewer come when every image has a label.
    per_page : int, >= 1
        Images on a page.
    steps : int, >= 0, optional
        Training steps before each page; None for the number in the session's configuration; 0 for
        no training: the pages are then ranked by the embeddings and the labels alone.
    strategy : {"top", "uncertain", "random", "mixed"}
        How the images of a page are chosen; see `Session.query`.
    background : bool
        Look at the pages while the training runs, as a person does, instead of waiting for it: one
        training after the other, each begun with a page, as soon as both classes have a label. What
        is found then depends on the machine's speed. The last training still runs in the end.

    Yields
    ------
    PageFound
        One for each page, once its labels are on disk.

    Raises
    ------
    ConfigError
        When `pages` or `per_page` is below 1, or `steps` below 0.
    """
    for name, value, least in (("pages", pages, 1), ("per_page", per_page, 1), ("steps", steps, 0)):
        if value is not None and value < least:
            raise ConfigError(f"{name} is {value!r}; it must be at least {least}.")
    return _hunt(
        session, truth, pages=pages, per_page=per_page, steps=steps, strategy=strategy, background=background
    )


def _hunt(
    session: Session,
    truth: Mapping[str, str],
    *,
    pages: int,
    per_page: int,
    steps: int | None,
    strategy: Literal["top", "uncertain", "random", "mixed"],
    background: bool,
) -> Iterator[PageFound]:
    labelled = session.labels.current()
    n_unlabelled = len(session.source) - len(labelled)
    n_hidden = sum(1 for i, label in truth.items() if label == ANOMALY and i not in labelled)
    found = looked = 0
    if (background or steps == 0) and not session.is_embedded:
        session.embed()
        session.wait()
    for page in range(1, pages + 1):
        if looked == n_unlabelled:
            return
        if steps != 0:
            _train(session, steps, background=background)
        step = session.step
        candidates = session.query(per_page, strategy=strategy)
        ranked_by = session.ranked_by
        if not candidates:  # what is left cannot be read
            return
        answers = {c.image_id: truth[c.image_id] for c in candidates}
        here = sum(1 for label in answers.values() if label == ANOMALY)
        by_chance = len(answers) * (n_hidden - found) / (n_unlabelled - looked)
        found += here
        looked += len(answers)
        session.label(answers, by="truth", reason=strategy)
        yield PageFound(
            page=page,
            step=step,
            ranked_by=ranked_by,
            shown=len(answers),
            found=here,
            by_chance=by_chance,
            found_so_far=found,
            looked_so_far=looked,
            n_hidden=n_hidden,
        )


def _train(session: Session, steps: int | None, *, background: bool) -> None:
    """Train and wait, or begin a training in the background unless one runs."""
    if not background:
        session.train(steps)
        session.wait()
    elif not session.is_busy:
        session.wait()  # returns at once, and raises what the training before has raised
        # Until both classes have a label, the embeddings rank alone.
        with contextlib.suppress(TooFewLabelsError):
            session.train(steps)


def pages_to_pandas(pages: Iterable[PageFound]) -> pd.DataFrame:
    """Put what each page brought into a table.

    Parameters
    ----------
    pages : iterable of PageFound
        As `hunt_with_truth` yields them.

    Returns
    -------
    DataFrame
        A row for each page, `page` as index, the other fields of `PageFound` as columns.
    """
    columns = list(PageFound.__dataclass_fields__)
    return pd.DataFrame([page.to_dict() for page in pages], columns=columns).set_index("page")
