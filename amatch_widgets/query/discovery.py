"""What the looks have brought so far, and what another page is likely to bring: when to stop.

Plain numbers from the journal of labels; the charts and the report draw them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from amatch_widgets.labels import ANOMALY
from amatch_widgets.labels.reason import was_looked_at

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from amatch_widgets.labels import Label

__all__ = ["LEAST_LOOKS", "PAGE", "Discovery", "Forecast", "discovery", "forecast"]

PAGE = 24  # images, as many as `Session.query` returns
LEAST_LOOKS = 12
"""With fewer looks, nothing is said about the next page."""

_WINDOW = 2 * PAGE  # looks that tell about the next page; older ones were of an easier part of the ranking
_PRIOR = 0.5  # shape of Jeffreys' prior of a Poisson rate, Gamma(1/2, 0)
_TAIL = 0.025  # outside the interval, at each end


@dataclass(frozen=True, slots=True)
class Forecast:
    """How many anomalies a page is likely to bring, if the search goes on as in the last looks.

    Parameters
    ----------
    n : int
        Images on the page.
    middle : int
        The median.
    low, high : int
        The ends of the 95 % interval.
    n_looks, n_found : int
        The last looks that this rests on, and the anomalies among them.
    """

    n: int
    middle: int
    low: int
    high: int
    n_looks: int
    n_found: int

    def __str__(self) -> str:
        about = f"about {self.middle:,}" if self.middle else "none"
        another = "Another image is" if self.n == 1 else f"Another {self.n:,} images are"
        return (
            f"{another} likely to bring {about} (95 %: {self.low:,} to {self.high:,}); "
            f"the last {self.n_looks:,} brought {self.n_found or 'none'}."
        )


@dataclass(frozen=True, slots=True, eq=False)
class Discovery:
    """How many anomalies each look has brought.

    Parameters
    ----------
    found : ndarray of int64, shape (n_looks,)
        Anomalies found up to and with each look, in the order of the looks. Read-only.
    n_given, n_given_anomalies : int
        Labels, and anomalies among them, that were known before and took no look.
    """

    found: NDArray[np.int64]
    n_given: int
    n_given_anomalies: int

    def __repr__(self) -> str:
        return f"Discovery({self.n_found:,} anomalies found in {self.n_looks:,} looks)"

    @property
    def n_looks(self) -> int:
        """Images that a person looked at and labelled."""
        return len(self.found)

    @property
    def n_found(self) -> int:
        """Anomalies among them."""
        return int(self.found[-1]) if len(self.found) else 0

    def last(self, n: int) -> int:
        """Return how many anomalies the last `n` looks brought."""
        before = self.n_looks - n
        return self.n_found - (int(self.found[before - 1]) if before > 0 else 0)

    def next_page(self, n: int = PAGE) -> Forecast | None:
        """Return what another page of `n` images is likely to bring; None after too few looks.

        It rests on the last 48 looks.
        """
        n_looks = min(self.n_looks, _WINDOW)
        return None if n_looks < LEAST_LOOKS else forecast(self.last(n_looks), n_looks, n)

    @property
    def outlook(self) -> str:
        """What another page of 24 images is likely to bring, in a sentence."""
        return self.outlook_for(PAGE)

    def outlook_for(self, n: int) -> str:
        """Say what another page of `n` images is likely to bring, in a sentence."""
        page = self.next_page(n)
        if page is not None:
            return str(page)
        return f"Too few looks to say what the next will bring ({self.n_looks}; {LEAST_LOOKS} are needed)."


def discovery(lines: Iterable[Label]) -> Discovery:
    """Count what the looks have brought.

    Parameters
    ----------
    lines : iterable of Label
        Every change of a label, oldest first: `LabelStore.history()`.

    Returns
    -------
    Discovery
        An image that was looked at counts once, at its first label, as what its label is now; one
        whose label was taken back does not count until it has a label again. Labels that were known
        before (given at the start, or read from a table) are no looks, whatever became of them.
    """
    first: dict[str, Label] = {}
    now: dict[str, str | None] = {}
    for line in lines:
        now[line.image_id] = line.label
        if line.label is not None:
            first.setdefault(line.image_id, line)
    kept = [
        (was_looked_at(line.reason), now[i] == ANOMALY) for i, line in first.items() if now[i] is not None
    ]
    found = np.cumsum([is_anomaly for is_look, is_anomaly in kept if is_look], dtype=np.int64)
    found.setflags(write=False)
    given = [is_anomaly for is_look, is_anomaly in kept if not is_look]
    return Discovery(found, len(given), sum(given))


def forecast(n_found: int, n_looks: int, n: int = PAGE) -> Forecast:
    """Say what a page is likely to bring, from what the last looks brought.

    Parameters
    ----------
    n_found : int, >= 0
        Anomalies that they brought.
    n_looks : int, >= 1
        The last looks.
    n : int, >= 1
        Images on the page.

    Returns
    -------
    Forecast
        Median and central 95 % interval of the predictive distribution.

    Notes
    -----
    Anomalies come as a Poisson process over the looks, of a rate with Jeffreys' prior Gamma(1/2, 0).
    After the looks the number on a page is negative binomial, with shape ``n_found + 1/2`` and
    probability ``n_looks / (n_looks + n)`` (Gelman et al. 2013, Bayesian Data Analysis, 3rd ed.,
    section 2.6). It is cut at `n`: a page holds no more. The interval takes in that the rate is
    known badly, but not that it falls while the ranking is used up. In simulated hunts of 20 pages
    with a window of two, it held 98 % or more of the pages with a steady rate, 97 % or more where
    the rate fell to 1/e within 75 looks, and 94 % within 40.
    """
    from scipy.special import betainc  # noqa: PLC0415 (SciPy takes its time, and few looks need none)

    # The probabilities of 0, of at most 1, ... of at most n - 1.
    up_to = betainc(n_found + _PRIOR, np.arange(1, n + 1), n_looks / (n_looks + n))
    low, middle, high = (int(np.searchsorted(up_to, share)) for share in (_TAIL, 0.5, 1 - _TAIL))
    return Forecast(n, middle, low, high, n_looks, n_found)
