"""The command line: parse, call `Session`, print.

Results go to the standard output, progress and messages to the standard error, so that
``amatch ... --json`` can be piped. Exit codes: 0 done; 1 an error, in one line; 2 a wrong call;
130 interrupted, with the model kept.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import sys
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amatch_widgets.errors import AmatchError, ConfigError
from amatch_widgets.progress import Progress, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from amatch_widgets.session import Session

__all__ = ["main"]

_INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; None for those of the process.

    Returns
    -------
    int
        The exit code: 0, 1 for an error that is told in one line, or 130 after Ctrl-C.

    Raises
    ------
    SystemExit
        With code 2 on a wrong call, and with 0 after ``--help``.
    """
    arguments = _parser().parse_args(argv)
    try:
        arguments.command(arguments)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001 (the last border: one line, or all of it on demand)
        if arguments.debug:
            traceback.print_exc()
        elif isinstance(error, (AmatchError, OSError)):
            print(f"amatch: {printable(str(error))}", file=sys.stderr)
        else:
            text = printable(f"{type(error).__name__}: {error}")
            print(f"amatch: unexpected {text} (run again with --debug for the traceback)", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="amatch",
        description="Find the few rare objects in a very large set of images, from a handful of labels.",
    )
    parser.add_argument("--version", action="version", version=f"amatch {version('amatch-widgets')}")
    commands = parser.add_subparsers(
        required=True, metavar="demo | embed | train | score | merge | export | figures | report"
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print the result as one JSON object")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")

    existing = argparse.ArgumentParser(add_help=False)
    existing.add_argument("run", type=Path, metavar="RUN", help="session folder")
    existing.add_argument("--source", metavar="SOURCE", help="where the images are now, when they have moved")

    demo = commands.add_parser(
        "demo",
        parents=[common],
        help="hunt on a synthetic sky, with the truth standing in for the person",
        description="Hunt on a synthetic sky, with the truth standing in for the person, and print how many "
        "of the rare objects each page brought.",
    )
    demo.add_argument("--images", type=_count, default=20_000, metavar="N", help="images (default 20000)")
    demo.add_argument("--pages", type=_count, default=5, metavar="N", help="pages to label (default 5)")
    demo.add_argument("--per-page", type=_count, default=24, metavar="N", help="images a page (default 24)")
    demo.add_argument(
        "--steps",
        type=_count_or_zero,
        metavar="N",
        help="training steps before each page; 0: rank by the embeddings and the labels alone",
    )
    demo.add_argument("--seed", type=int, default=0, help="seed of the sky and of the training (default 0)")
    demo.add_argument(
        "--path",
        type=Path,
        default=Path("runs/demo"),
        metavar="RUN",
        help="session folder (default runs/demo)",
    )
    demo.set_defaults(command=_demo)

    embed = commands.add_parser(
        "embed",
        parents=[common, existing],
        help="make the embeddings of all images, by which labels rank them at once",
        description="Make the embeddings of all images, by which the labels of a RUN rank them within a "
        "second, without any training. What is done already is kept; Ctrl-C keeps it too.",
    )
    embed.add_argument(
        "--archive",
        metavar="NAME",
        help="embed the highest-scored images of an archive of the RUN instead, to look for more like them",
    )
    embed.add_argument(
        "--top", type=_count, default=100_000, metavar="N", help="of the archive (default 100000 images)"
    )
    embed.set_defaults(command=_embed)

    _add_train(commands, [common])

    _add_score(commands, [common, existing])

    merge = commands.add_parser(
        "merge",
        parents=[common, existing],
        help="take over the labels of another session on the same images",
        description="Take over what another annotator said of the same images, with who said so and when. "
        "OTHER is only read. Labels that both changed, and differently, are listed and stay as they are.",
    )
    merge.add_argument("other", type=Path, metavar="OTHER", help="session folder, or its labels.jsonl")
    merge.add_argument(
        "--disagreements", type=Path, metavar="FILE.csv", help="write the labels that differ as a table"
    )
    merge.add_argument(
        "--take", choices=("theirs", "mine", "newest"), help="settle the labels that differ: who is right"
    )
    merge.add_argument("--dry-run", action="store_true", help="change nothing, tell what would be done")
    merge.set_defaults(command=_merge)

    export = commands.add_parser(
        "export",
        parents=[common, existing],
        help="write a shortlist for other programs",
        description="Write a shortlist: the best scores, or all that is labelled. The ending of OUT is the "
        "format: .csv, .parquet, .vot or .xml (VOTable), .fits (table), .reg (regions for DS9).",
    )
    export.add_argument("out", type=Path, nargs="?", metavar="OUT", help="file to write, e.g. best.csv")
    export.add_argument(
        "--cutouts",
        type=Path,
        metavar="FOLDER",
        help="write the images themselves too, as PNG, to a new folder",
    )
    export.add_argument(
        "--top", type=_count, metavar="N", help="the N best scores; default: all labelled images"
    )
    export.set_defaults(command=_export)

    figures = commands.add_parser(
        "figures",
        parents=[common, existing],
        help="draw the metrics, the discovery curve, the scores and a sheet of the best",
        description="Draw figures for a paper or a talk: the metrics, the discovery curve, the scores, and a "
        "sheet of the best 50. Needs matplotlib: pip install 'amatch-widgets[figures]'.",
    )
    figures.add_argument(
        "--out", type=Path, metavar="FOLDER", help="folder to write to (default: figures in the RUN)"
    )
    figures.add_argument(
        "--format",
        action="append",
        choices=("png", "svg", "pdf"),
        help="a format to write; may be given several times (default: all three)",
    )
    figures.set_defaults(command=_figures)

    report = commands.add_parser(
        "report",
        parents=[common, existing],
        help="write one HTML file with all that was found and what it rests on",
        description="Write one HTML file with labels, metrics, figures, the best candidates, options and "
        "versions. Needs matplotlib: pip install 'amatch-widgets[figures]'.",
    )
    report.add_argument(
        "--out", type=Path, metavar="FILE.html", help="file to write (default: report.html in the RUN)"
    )
    report.add_argument("--top", type=_count, default=50, metavar="N", help="candidates shown (default 50)")
    report.set_defaults(command=_report)
    return parser


def _count(text: str) -> int:
    """Parse a whole number of at least 1; argparse shows the message."""
    try:
        value = int(text.replace("_", ""))
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return value


def _count_or_zero(text: str) -> int:
    """Parse a whole number of at least 0; argparse shows the message."""
    if text.strip() == "0":
        return 0
    try:
        return _count(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 0") from None


def _add_train(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    train = commands.add_parser(
        "train",
        parents=parents,
        help="train on the labels, score all images, and evaluate",
        description="Train on the labels, score all images, and evaluate; first make their embeddings where "
        "there are none. A RUN that exists is continued. Ctrl-C stops after the step and keeps the model.",
    )
    train.add_argument("source", metavar="SOURCE", help="images: whatever can be opened")
    train.add_argument("--labels", type=Path, metavar="CSV", help="label file with the columns id,label")
    train.add_argument("--path", type=Path, required=True, metavar="RUN", help="session folder")
    train.add_argument("--steps", type=_count, metavar="N", help="training steps of this cycle")
    train.add_argument("--backbone", metavar="NAME", help="a timm model (only for a new RUN)")
    train.add_argument(
        "--size", type=_count, metavar="PX", help="side of the images the model sees (new RUN)"
    )
    train.add_argument(
        "--sample",
        type=_count,
        metavar="N",
        help="learn from so many images, drawn at random (new RUN)",
    )
    train.add_argument("--seed", type=int, help="seed of the training (only for a new RUN)")
    train.set_defaults(command=_train)


def _add_score(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    score = commands.add_parser(
        "score",
        parents=parents,
        help="score all images with the model that is there, or others with what ranks",
        description="Score all images with the model that is there; or other images, however many, with what "
        "ranks in the session. Called again it goes on where it was.",
    )
    score.add_argument("archive", nargs="?", metavar="ARCHIVE", help="other images: whatever can be opened")
    score.add_argument("--out", metavar="FOLDER", help="for its scores, or a URL; default: in RUN")
    score.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a Dask cluster that scores ARCHIVE, e.g. tcp://node1:8786"
    )
    score.set_defaults(command=_score)


# The package is imported inside the commands: torch takes seconds, and --help should not.


def _demo(arguments: argparse.Namespace) -> None:
    import amatch_widgets as am  # noqa: PLC0415
    from amatch_widgets.hunt import hunt_with_truth  # noqa: PLC0415

    sky = am.demo.sky(arguments.images, seed=arguments.seed)
    session = am.Session(
        sky,
        labels=sky.first_labels(seed=arguments.seed),
        path=arguments.path,
        train=am.TrainConfig(seed=arguments.seed),
    )
    with session, Progress(session) as progress:
        pages = []
        hunt = hunt_with_truth(
            session, sky.truth, pages=arguments.pages, per_page=arguments.per_page, steps=arguments.steps
        )
        if not arguments.json:
            print("page  shown  found  by chance  found so far")
        with _StopOnInterrupt(session, progress):
            for page in hunt:
                pages.append(page)
                if not arguments.json:
                    progress.clear()
                    print(
                        f"{page.page:4d}  {page.shown:5d}  {page.found:5d}  {page.by_chance:9.2f}"
                        f"  {page.found_so_far} of {page.n_hidden} in {page.looked_so_far} looked at",
                        flush=True,
                    )
        if arguments.json:
            print(json.dumps(_summary(session) | {"pages": [page.to_dict() for page in pages]}))


def _train(arguments: argparse.Namespace) -> None:
    import amatch_widgets as am  # noqa: PLC0415

    # A run that exists knows its own configuration: only what was asked for is handed on.
    options = {k: getattr(arguments, k) for k in ("backbone", "seed") if getattr(arguments, k) is not None}
    session = am.Session(
        arguments.source,
        labels=arguments.labels,
        path=arguments.path,
        train=am.TrainConfig(**options) if options else None,
        image=am.Preprocess(size=arguments.size) if arguments.size is not None else None,
        sample=arguments.sample,
    )
    _work(session, lambda: session.train(arguments.steps), as_json=arguments.json)


def _embed(arguments: argparse.Namespace) -> None:
    import amatch_widgets as am  # noqa: PLC0415

    session = am.Session.open(arguments.run, source=arguments.source)
    archive, n = arguments.archive, arguments.top
    start = session.embed if archive is None else lambda: session.embed(archive, n=n)
    _work(session, start, as_json=arguments.json)


def _score(arguments: argparse.Namespace) -> None:
    import amatch_widgets as am  # noqa: PLC0415

    session = am.Session.open(arguments.run, source=arguments.source)
    if arguments.archive is None:
        _work(session, session.score, as_json=arguments.json)
        return
    with contextlib.ExitStack() as stack:
        client = None
        if arguments.scheduler is not None:
            from amatch_widgets.archive.cluster import connect  # noqa: PLC0415

            client = stack.enter_context(connect(arguments.scheduler))
        start = functools.partial(session.score, arguments.archive, path=arguments.out, client=client)
        _work(session, start, as_json=arguments.json)


def _merge(arguments: argparse.Namespace) -> None:
    import amatch_widgets as am  # noqa: PLC0415

    with am.Session.open(arguments.run, source=arguments.source) as session:
        result = session.merge_labels(arguments.other, take=arguments.take, dry_run=arguments.dry_run)
        if result.notice:
            print(f"warning: {printable(result.notice)}", file=sys.stderr)
        file = None if arguments.disagreements is None else result.save_disagreements(arguments.disagreements)
        if not arguments.json:
            print(printable(repr(result)))
            if file is not None:
                print(f"Wrote {file}")
            return
        told = {
            "n_labels": result.n_labels,
            "n_lines": len(result.lines),
            "n_disagreements": len(result.disagreements),
            "n_unknown_ids": len(result.unknown_ids),
            "n_splits_differ": result.n_splits_differ,
            "is_dry_run": result.is_dry_run,
            "file": None if file is None else str(file),
        }
        print(json.dumps(_summary(session) | {"merge": told}))


def _export(arguments: argparse.Namespace) -> None:
    import amatch_widgets as am  # noqa: PLC0415

    if arguments.out is None and arguments.cutouts is None:
        raise ConfigError("Nothing to write: name a file, OUT, or a folder, --cutouts FOLDER.")
    told: dict[str, Any] = {}
    with am.Session.open(arguments.run, source=arguments.source) as session:
        if arguments.out is not None:
            told["file"] = str(session.export(arguments.out, n=arguments.top))
        if arguments.cutouts is not None:
            found = session.export_cutouts(arguments.cutouts, arguments.top)
            told["cutouts"] = {
                "folder": str(found.folder),
                "n_written": found.n_written,
                "problems": found.problems,
            }
            for image_id, reason in found.problems.items():
                print(printable(f"warning: {image_id!r} cannot be read: {reason}"), file=sys.stderr)
        if arguments.json:
            print(json.dumps(_summary(session) | told))
            return
        if "file" in told:
            print(f"Wrote {told['file']}")
        if "cutouts" in told:
            print(f"Wrote {told['cutouts']['n_written']} cutouts to {told['cutouts']['folder']}")


def _figures(arguments: argparse.Namespace) -> None:
    import amatch_widgets as am  # noqa: PLC0415

    options = {"formats": arguments.format} if arguments.format else {}
    with am.Session.open(arguments.run, source=arguments.source) as session:
        files = [str(path) for path in session.figures(arguments.out, **options)]
        print(json.dumps(_summary(session) | {"files": files}) if arguments.json else "\n".join(files))


def _report(arguments: argparse.Namespace) -> None:
    import amatch_widgets as am  # noqa: PLC0415

    with am.Session.open(arguments.run, source=arguments.source) as session:
        path = session.report(arguments.out, n=arguments.top)
        print(json.dumps(_summary(session) | {"file": str(path)}) if arguments.json else f"Wrote {path}")


def _work(session: Session, start: Callable[[], None], *, as_json: bool) -> None:
    """Start a job, follow it to its end, and print what the session then holds."""
    with session, Progress(session) as progress:
        with _StopOnInterrupt(session, progress):
            start()
            session.wait()
        progress.clear()
        summary = _summary(session)
        print(json.dumps(summary) if as_json else _describe(summary))


def _summary(session: Session) -> dict[str, Any]:
    metrics = session.metrics
    return {
        "path": str(session.path),
        "step": session.step,
        "cycle": session.cycle,
        "n_images": len(session.source),
        "labels": session.labels.counts(),
        "scores_cycle": session.scores_cycle,
        "is_embedded": session.is_embedded,
        "ranked_by": session.ranked_by,
        "ranking": session.ranking_note,
        "metrics": metrics.to_dict(),
        "metrics_text": {
            "AUROC": repr(metrics.auroc),
            "AUPRC": repr(metrics.auprc),
            f"precision in the top {metrics.k}": repr(metrics.precision_at_k),
        },
        "n_problems": len(session.problems),
    }


def _describe(summary: dict[str, Any]) -> str:
    labels = summary["labels"]
    lines = [
        f"{summary['path']}: {summary['n_images']} images, {summary['step']} steps, cycle {summary['cycle']}",
        f"labels: {labels['anomaly']} anomalies, {labels['normal']} normals",
        f"ranking: {summary['ranking']}",
        *(f"{name}: {text}" for name, text in summary["metrics_text"].items()),
    ]
    return "\n".join(lines)


class _StopOnInterrupt:
    """On Ctrl-C, stop the session's job after its step and say what is kept.

    A second Ctrl-C while it stops is not caught.
    """

    def __init__(self, session: Session, progress: Progress) -> None:
        self._session = session
        self._progress = progress

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or not issubclass(kind, KeyboardInterrupt):
            return
        is_embedding = not self._session.is_embedded
        self._session.stop()
        self._session.wait()
        self._progress.clear()
        done = "while embedding" if is_embedding else f"after step {self._session.step}"
        print(f"Stopped {done}; kept in {self._session.path}.", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
