"""How often the 95 % interval of what is left to find holds the truth, in simulated hunts.

A hunt labels pages of 48 images, 6 of them drawn by `draw_audit` and the others the top of a ranking
that changes after each page. The estimate is taken after 20, 60 and 200 audits of the same hunt, that is
after 4, 10 and 34 pages. Scores rank like normal numbers with variance 1, a tenth of which is drawn
anew for each page, and those of anomalies are higher by:

good          2, growing to 4 within 6 pages
mediocre      0.7, growing to 1.8
useless       0
misleading    -1: anomalies sit at the bottom

covered       share of hunts whose interval holds the number of anomalies; above and below: those whose
              interval lies above and below it
width         median width of the interval, in anomalies of the set
off           mean of `Remaining.unbiased` less the truth, in standard errors (of known variances)
hits          audits that were anomalies, mean of the hunts

Beside it on the first 100 hunts: "gamma" is Fay & Feuer's with the largest possible weight, "betting"
the hedged capital of Waudby-Smith & Ramdas with a bet fixed from the variance until then, "normal" the
value plus or minus 1.96 standard errors. All are held within what is known.

    OMP_NUM_THREADS=1 python benchmarks/estimate.py --jobs 2   # 15 minutes on 2 busy cores
    python benchmarks/estimate.py --hunts 20 --images 2000     # a look in 20 s
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
import zlib
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from report import provenance
from scipy.special import gammaincinv

from amatch_widgets.query.audit import MAX_WEIGHT, AuditDraw, draw_audit
from amatch_widgets.query.estimate import estimate

IMAGES, SHARES, AUDITS = (2000, 20_000), (0.003, 0.01, 0.05), (20, 60, 200)
RANKINGS = {"good": (2.0, 4.0), "mediocre": (0.7, 1.8), "useless": (0.0, 0.0), "misleading": (-1.0, -1.0)}
_PAGE, _AUDITED, _LEARNT = 48, 6, 6
_KNOWN = 5  # anomalies and normals at the start; at most half of the anomalies
_LASTING = 0.9
_OTHERS = 100  # hunts on which the other intervals are tried
_BINS = (0, 0.5, 1, 2, 5, math.inf)

Setting = tuple[int, float, str]


def hunt(n: int, share: float, ranking: str, seed: int) -> list[dict[str, Any]]:
    """Play one hunt; return what is known and said after each number of audits."""
    rng = np.random.default_rng(seed)
    total = round(n * share)
    is_anomaly = np.arange(n) < total
    n_found = min(_KNOWN, total // 2)
    free = np.r_[n_found:total, total + _KNOWN : n]
    lasting = rng.standard_normal(n, np.float32) * math.sqrt(_LASTING)
    draws: list[AuditDraw] = []
    variances: list[float] = []
    said = []
    for page in range(math.ceil(AUDITS[-1] / _AUDITED)):
        first, last = RANKINGS[ranking]
        shift = first + (last - first) * min(1, page / _LEARNT)
        anew = rng.standard_normal(n, np.float32) * math.sqrt(1 - _LASTING)
        scores = np.clip((lasting + anew + np.float32(shift) * is_anomaly) / 20 + 0.5, 0, 1)
        ranked = free[np.argsort(-scores[free])]
        audited = min(_AUDITED, AUDITS[-1] - len(draws))
        variances += [variance(is_anomaly[ranked])] * audited
        drawn, chances = draw_audit(scores, free, audited, seed=int(rng.integers(2**32)))
        draws += AuditDraw.of_page(chances, is_anomaly[drawn], n_free=len(free), n_found=n_found)
        rest = ranked[~np.isin(ranked, drawn)]
        free = rest[_PAGE - audited :]
        n_found = total - int(is_anomaly[free].sum())
        said += [
            record(draws[:audits], variances[:audits], n_found, len(free), total)
            for audits in AUDITS
            if len(draws) - audited < audits <= len(draws)
        ]
    return said


def variance(is_anomaly: np.ndarray) -> float:
    """Return the variance of one draw's estimate, from what is at each rank; few hits would tell little."""
    fade = 1 - 1 / MAX_WEIGHT
    faded = np.arange(1, len(is_anomaly) + 1) ** -fade
    stands_for = faded.sum() / faded[is_anomaly]
    return float(stands_for.sum() - len(stands_for) ** 2)


def record(
    draws: list[AuditDraw], variances: list[float], n_found: int, n_free: int, total: int
) -> dict[str, Any]:
    found = estimate(draws, n_found=n_found, n_free=n_free)
    weights, _, _ = weighted(draws)
    return {
        "total": total,
        "n_found": n_found,
        "hits": found.n_hits,
        "unbiased": found.unbiased,
        "variance": float(weights**2 @ variances),
        "interval": (found.total.low, found.total.high),
        "draws": draws,
        "bounds": (n_found, n_found + n_free),
    }


# ---- other intervals ------------------------------------------------------------------------------


def weighted(draws: list[AuditDraw]) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the weights as in `estimate`, those of the hits over their chances, and what was known."""
    weights = np.sqrt(np.arange(1, len(draws) + 1))
    weights /= weights.sum()
    hits = np.array([w / d.chance for w, d in zip(weights, draws, strict=True) if d.is_anomaly])
    return weights, hits, float(sum(w * d.n_found for w, d in zip(weights, draws, strict=True)))


def normal(draws: list[AuditDraw], _bounds: tuple[int, int]) -> tuple[float, float]:
    _, hits, known = weighted(draws)
    half = 1.96 * math.sqrt(hits @ hits)
    return known + hits.sum() - half, known + hits.sum() + half


def gamma(draws: list[AuditDraw], _bounds: tuple[int, int]) -> tuple[float, float]:
    """Fay & Feuer 1997."""
    weights, hits, known = weighted(draws)
    largest = max(w * MAX_WEIGHT * d.n_free for w, d in zip(weights, draws, strict=True))
    ends = [0.0]
    for values, p in ((hits, 0.025), (np.append(hits, largest), 0.975)):
        if len(values):
            y, v = values.sum(), values @ values
            ends.append(v / y * float(gammaincinv(y * y / v, p)))
    return known + ends[-2], known + ends[-1]


def betting(draws: list[AuditDraw], bounds: tuple[int, int]) -> tuple[float, float]:
    """Waudby-Smith & Ramdas 2024, sections 4.4 and 5: hedged capital, predictable plug-in bets."""
    chance, free, before, hit = np.array([(d.chance, d.n_free, d.n_found, d.is_anomaly) for d in draws]).T
    z = hit / chance / (MAX_WEIGHT * free)  # in [0, 1]
    t = np.arange(1, len(z) + 1)
    mean = (0.5 + np.cumsum(z)) / (t + 1)
    spread = np.r_[0.25, (0.25 + np.cumsum((z - mean) ** 2))[:-1] / t[:-1]]
    bet = np.sqrt(2 * math.log(2 / 0.05) / (len(z) * spread))
    grid = np.unique(np.r_[bounds[0], bounds[0] + np.geomspace(1, max(1, bounds[1] - bounds[0]), 300)])
    m = np.clip((grid[:, None] - before) / (MAX_WEIGHT * free), 1e-9, 1 - 1e-9)
    up = np.log1p(np.minimum(bet, 0.5 / m) * (z - m)).cumsum(1).max(1)
    down = np.log1p(-np.minimum(bet, 0.5 / (1 - m)) * (z - m)).cumsum(1).max(1)
    held = grid[np.maximum(up, down) < math.log(2 / 0.05)]
    return (float(held[0]), float(held[-1])) if len(held) else (bounds[0], bounds[0])


OTHERS = {"gamma": gamma, "betting": betting, "normal": normal}


# ---- tables ---------------------------------------------------------------------------------------


def judged(setting: Setting, n_hunts: int) -> list[dict[str, Any]]:
    """Play the hunts of one setting; return the figures after each number of audits."""
    seeds = [zlib.crc32(f"{setting} {i}".encode()) for i in range(n_hunts)]
    played = [hunt(*setting, seed) for seed in seeds]
    rows = []
    for audits, runs in zip(AUDITS, zip(*played, strict=True), strict=True):
        truth = runs[0]["total"]
        row = dict(zip(("images", "share", "ranking"), setting, strict=True))
        row |= {"audits": audits, "anomalies": truth}
        row |= {name: float(np.mean([r[name] for r in runs])) for name in ("n_found", "hits")}
        mean = {name: float(np.mean([r[name] for r in runs])) for name in ("unbiased", "variance")}
        row["off"] = (mean["unbiased"] - truth) / math.sqrt(mean["variance"] / n_hunts)
        row |= covered(np.array([r["interval"] for r in runs]), truth, "")
        for name, interval in OTHERS.items():
            ends = np.array(
                [np.clip(interval(r["draws"], r["bounds"]), *r["bounds"]) for r in runs[:_OTHERS]]
            )
            row |= covered(ends, truth, f"_{name}")
        rows.append(row)
    return rows


def covered(ends: np.ndarray, truth: int, suffix: str) -> dict[str, float]:
    above, below = ends[:, 0] > truth + 1e-6, ends[:, 1] < truth - 1e-6
    figures = {
        "covered": 1 - (above | below).mean(),
        "above": above.mean(),
        "below": below.mean(),
        "width": np.median(ends[:, 1] - ends[:, 0]) / truth,
    }
    return {name + suffix: float(value) for name, value in figures.items()}


def table(rows: list[dict[str, Any]]) -> str:
    names = (
        "images",
        "share",
        "ranking",
        "audits",
        "anomalies",
        "found",
        "hits",
        "covered",
        "above",
        "below",
    )
    names = (*names, "width", "off", *(f"{other}: covered, width" for other in OTHERS))
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for r in rows:
        cells = [f"{r['images']:,}", f"{r['share']:.1%}", r["ranking"], r["audits"], r["anomalies"]]
        cells += [f"{r['n_found']:.0f}", f"{r['hits']:.2f}", f"**{r['covered']:.3f}**"]
        cells += [f"{r['above']:.3f}", f"{r['below']:.3f}", f"{r['width']:.2f}", f"{r['off']:+.1f}"]
        cells += [f"{r[f'covered_{other}']:.2f}, {r[f'width_{other}']:.2f}" for other in OTHERS]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def summary(rows: list[dict[str, Any]]) -> str:
    """Return a table by the number of hits; widths are geometric means."""
    names = ("hits", "settings", "covered: least", "mean", "most", "in 0.90-0.98", "width")
    names = (*names, *(f"{other}: covered, width" for other in OTHERS))
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for low, high in itertools.pairwise(_BINS):
        inside = [r for r in rows if low <= r["hits"] < high]
        if not inside:
            continue
        c = np.array([r["covered"] for r in inside])
        cells = [f"{low:g} to {high:g}" if high < math.inf else f"{low:g} and more", len(c)]
        cells += [f"{x:.3f}" for x in (c.min(), c.mean(), c.max())]
        cells += [int(((c >= 0.9) & (c <= 0.98)).sum()), f"{geometric(inside, 'width'):.2f}"]
        for other in OTHERS:
            mean = np.mean([r[f"covered_{other}"] for r in inside])
            cells.append(f"{mean:.3f}, {geometric(inside, f'width_{other}'):.2f}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def geometric(rows: list[dict[str, Any]], name: str) -> float:
    return float(np.exp(np.mean([np.log(max(r[name], 1e-3)) for r in rows])))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hunts", type=int, default=500, help="of each setting, at least 2 (default: 500)")
    parser.add_argument(
        "--images", nargs="+", type=int, default=list(IMAGES), help="in the set, 1,700 or more"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes at once (default: 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    if arguments.hunts < 2 or min(arguments.images) < 1700:
        parser.error("there must be 2 hunts or more, of 1,700 images or more")
    started, rows = time.perf_counter(), []
    settings = list(itertools.product(arguments.images, SHARES, RANKINGS))
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for setting, done in zip(
            settings, pool.map(judged, settings, [arguments.hunts] * len(settings)), strict=True
        ):
            rows += done
            print(*setting, f"{time.perf_counter() - started:.0f} s", file=sys.stderr)
    off = np.abs([r["off"] for r in rows])
    print(table(rows), summary(rows), sep="\n\n")
    print(
        f"\nThe unbiased estimate is more than 2 standard errors off in {(off > 2).sum()} of {len(off)}",
        end="",
    )
    print(f" settings, {off.max():.1f} at most. {time.perf_counter() - started:.0f} s.")
    if arguments.json:
        print(json.dumps({"benchmark": "estimate", "hunts": arguments.hunts, "runs": rows, **provenance()}))


if __name__ == "__main__":
    main()
