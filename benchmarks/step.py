"""How much faster a training step, scoring and embedding are than what is usual.

Steps alternate in one process, a few of ours after a few of the usual FixMatch step
(../shared/bench/reference_step.py: PIL in two workers, one float32 pass over all views with
gradient), both with 16 labelled and 80 unlabelled images and the default network. Ratios are the
median seconds of the reference over ours. Scoring and embedding alternate with a plain loop that
gives the same: eager float32 in PyTorch's default memory format, 256 images at once.

ratio_64px           our step, with soft pseudo-labels: every strong view is learnt from
ratio_64px_whole     the same with frozen_stages=0: no weight is kept as it is
ratio_64px_usual     with hard pseudo-labels: strong views without a sure one are left out
ratio_64px_vectors   as ratio_64px, with the head that a session has: it sees the instant tier's vectors
score_ratio, embed_ratio    images a second, ours over the plain loop's

    python benchmarks/step.py --json
    python benchmarks/step.py --passes --json   # our gradient alone, also in bfloat16 and compiled
    python benchmarks/step.py --gpu --json      # steps and images a second on a CUDA device
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from report import ROOT, provenance

if TYPE_CHECKING:
    from collections.abc import Callable

_PLAIN_BATCH = 256
_RATIO = {"unlabelled_ratio": 5}  # as the usual step has it
_VARIANTS = {
    "": {},
    "_whole": {"frozen_stages": 0},
    "_usual": {"pseudo_labels": "hard"},
    "_vectors": {"on_vectors": True},
}


class Ours:
    """A training of ours on a synthetic sky, a few steps at a time.

    With `on_vectors` it starts from the instant tier's ranking, as in a session; else as a linear probe.
    """

    def __init__(self, size: int, device: str, *, on_vectors: bool = False, **options: Any) -> None:
        import amatch_widgets as am  # noqa: PLC0415 (before the reference imports timm)
        from amatch_widgets.images.pixels import PixelPool  # noqa: PLC0415
        from amatch_widgets.learn.feed import Feed  # noqa: PLC0415
        from amatch_widgets.learn.trainer import Trainer  # noqa: PLC0415

        config = am.TrainConfig(device=device, dihedral=True, **_RATIO, **options)
        sky = am.demo.sky(400, seed=0, size=size)
        labels = {i: i % 2 for i in range(50)}
        self._feed = Feed(
            PixelPool(sky, am.Preprocess(size=size)),
            len(sky),
            lambda: (1, labels),
            batch=config.batch,
            n_unlabelled=config.batch * config.unlabelled_ratio,
            seed=0,
        )
        start = ranking_of(sky, size, labels) if on_vectors else None
        self._trainer = Trainer(config, 3, shape=start.shape if start else None)
        self._trainer.start = start

    def seconds(self, n: int) -> list[float]:
        """Train `n` steps and return the seconds of each, after two that warm up."""
        return [record.seconds for record in self._trainer.steps(n + 2, self._feed)][2:]

    def read_all(self) -> None:
        """Let the pool hold all images."""
        self._feed.pool.batch(np.arange(len(self._feed.pool)))


def ranking_of(sky: Any, size: int, labels: dict[int, int]) -> Any:
    """Return the start of a training from the instant tier's ranking by some labels."""
    from amatch_widgets.learn.backbone import build_classifier  # noqa: PLC0415
    from amatch_widgets.learn.embed import Embedder  # noqa: PLC0415
    from amatch_widgets.learn.projection import Projection  # noqa: PLC0415
    from amatch_widgets.learn.start import Start  # noqa: PLC0415
    from amatch_widgets.query.head import InstantHead, logit_of  # noqa: PLC0415

    embedder = Embedder(build_classifier("tf_efficientnet_lite0"), side=size, n_views=1)
    raw = embedder.raw(np.stack([sky.read(i) for i in range(len(sky))]))
    projection = Projection.fit(raw, embedder.blocks, seed=0)
    head = InstantHead(projection.apply(raw), projection.spaces, np.ones(len(raw), np.bool_), seed=0)
    fit = head.fit(labels)
    likely = np.argsort(-fit.scores)[: len(raw) // 50]
    return Start(projection, size, 1, fit.weights, fit.bias, likely, logit_of(fit.scores))


def load_reference(shared: Path) -> Any:
    spec = importlib.util.spec_from_file_location("reference_step", shared / "bench" / "reference_step.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compare_steps(reference: Any, size: int, n: int, rounds: int, workers: int) -> dict[str, float]:
    """Return the seconds of a step and the ratios at one size."""
    ours = {name: Ours(size, "cpu", **options) for name, options in _VARIANTS.items()}
    theirs: list[float] = []
    seconds: dict[str, list[float]] = {name: [] for name in ours}
    for _ in range(rounds):
        with contextlib.closing(reference.steps(size, n, workers)) as steps:
            theirs += steps
        for name, training in ours.items():
            seconds[name] += training.seconds(n)
    usual = statistics.median(theirs)
    figures = {f"reference_step_s_{size}px": round(usual, 3)}
    for name, values in seconds.items():
        figures[f"step_s_{size}px{name}"] = round(statistics.median(values), 3)
        figures[f"ratio_{size}px{name}"] = round(usual / statistics.median(values), 2)
    return figures


def compare_looks(n_images: int, score_px: int, embed_px: int, rounds: int) -> dict[str, float]:
    """Return images a second of scoring and embedding, ours and plain, and the ratios."""
    import torch  # noqa: PLC0415

    from amatch_widgets.learn.backbone import build_classifier  # noqa: PLC0415
    from amatch_widgets.learn.embed import Embedder  # noqa: PLC0415
    from amatch_widgets.learn.inference import Inference  # noqa: PLC0415

    model = build_classifier("tf_efficientnet_lite0").eval()
    plain = build_classifier("tf_efficientnet_lite0").eval().to(memory_format=torch.contiguous_format)
    figures: dict[str, float] = {}
    for kind, side, fast, slow in (
        ("score", score_px, Inference(model).scores, lambda images: plain_scores(plain, images)),
        ("embed", embed_px, Embedder(model, side=embed_px, n_views=1).raw, plain_features(plain)),
    ):
        images = noise(n_images, side)
        rates = rates_of({"": fast, "_plain": slow}, images, rounds)
        figures |= {f"{kind}{name}_images_per_s": round(rate, 1) for name, rate in rates.items()}
        figures[f"{kind}_ratio"] = round(rates[""] / rates["_plain"], 2)
    return figures


def noise(n: int, side: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def rates_of(looks: dict[str, Callable[..., Any]], images: Any, rounds: int) -> dict[str, float]:
    """Return the median images a second of each, in turns; the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in looks}
    for _ in range(1 + rounds):
        for name, look in looks.items():
            started = time.perf_counter()
            look(images)
            seconds[name].append(time.perf_counter() - started)
    return {name: len(images) / statistics.median(values[1:]) for name, values in seconds.items()}


def batches(images: Any) -> Any:
    """Yield float tensors as a plain loop makes them."""
    import torch  # noqa: PLC0415

    for start in range(0, len(images), _PLAIN_BATCH):
        x = torch.from_numpy(images[start : start + _PLAIN_BATCH]).permute(0, 3, 1, 2)
        yield x.contiguous().float() / 255


def plain_scores(model: Any, images: Any) -> Any:
    import torch  # noqa: PLC0415

    with torch.inference_mode():
        return torch.cat([model(x).softmax(1)[:, 1] for x in batches(images)])


def plain_features(model: Any) -> Callable[[Any], Any]:
    """Return a loop that takes the mean and deviation of the last three groups' maps and the final ones."""
    import torch  # noqa: PLC0415

    from amatch_widgets.learn.stages import block_groups  # noqa: PLC0415

    taps: list[Any] = []
    for _, group in block_groups(model.network)[-3:]:
        group.register_forward_hook(lambda _module, _inputs, maps: taps.append(maps))

    def look(images: Any) -> Any:
        found = []
        with torch.inference_mode():
            for x in batches(images):
                taps.clear()
                taps.append(model.network.forward_features((x - model.mean) / model.std))
                pairs = ((maps.mean((2, 3)), maps.std((2, 3), correction=0)) for maps in taps)
                found.append(torch.cat([statistic for pair in pairs for statistic in pair], 1))
        return torch.cat(found)

    return look


def compare_passes(size: int, rounds: int) -> dict[str, float]:
    """Return the seconds of a step's gradient in ways that alternate, and those that compiling takes.

    96 images in chunks through the network as it is trained: with its frozen part in bfloat16, as a step has
    it; all in float32; all in bfloat16; compiled.
    """
    import torch  # noqa: PLC0415

    import amatch_widgets as am  # noqa: PLC0415
    from amatch_widgets.learn.chunks import backward_in_chunks, chunk_size  # noqa: PLC0415
    from amatch_widgets.learn.stages import in_bfloat16  # noqa: PLC0415
    from amatch_widgets.learn.trainer import Trainer  # noqa: PLC0415

    trainer = Trainer(am.TrainConfig(device="cpu"), 3)
    trainer._train_mode()  # noqa: SLF001 (what is measured is a part of its step)
    model, frozen = trainer.model, trainer._frozen  # noqa: SLF001 (as above)
    x = torch.rand(96, 3, size, size).contiguous(memory_format=torch.channels_last)
    target, weight = torch.full((96, 2), 0.5), torch.ones(96)
    chunk = chunk_size(96, size, x.device)
    compiled = torch.compile(model)
    passes: dict[str, tuple[Any, Callable[[], Any]]] = {
        "": (model, lambda: in_bfloat16(frozen)),
        "_float32": (model, contextlib.nullcontext),
        "_bfloat16": (model, lambda: torch.autocast("cpu", torch.bfloat16)),
        "_compiled": (compiled, contextlib.nullcontext),
    }

    def seconds(name: str) -> float:
        network, context = passes[name]
        started = time.perf_counter()
        with context():
            backward_in_chunks(network, x, target, weight, size=chunk)
        return time.perf_counter() - started

    figures = {f"compile_s_{size}px": seconds("_compiled")}
    found: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(1 + rounds):
        for name, values in found.items():
            values.append(seconds(name))
    figures |= {f"gradient_s_{size}px{name}": statistics.median(v[1:]) for name, v in found.items()}
    return {name: round(value, 3) for name, value in figures.items()}


def on_gpu(n: int, n_images: int, size: int) -> dict[str, Any]:
    """Return steps and images a second on the CUDA device."""
    import torch  # noqa: PLC0415

    from amatch_widgets.learn.backbone import build_classifier  # noqa: PLC0415
    from amatch_widgets.learn.inference import Inference  # noqa: PLC0415

    training = Ours(size, "cuda")
    step_s = {"_streamed": statistics.median(training.seconds(n))}
    training.read_all()
    step_s[""] = statistics.median(training.seconds(n))  # all images stay on the device
    inference = Inference(build_classifier("tf_efficientnet_lite0").eval().to("cuda"))
    rates = rates_of({"score": inference.scores}, noise(n_images, size), 3)
    return {
        "gpu": torch.cuda.get_device_name(),
        **{f"gpu_steps_per_s_{size}px{name}": round(1 / value, 2) for name, value in step_s.items()},
        f"gpu_score_images_per_s_{size}px": round(rates["score"], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128], help="sides of the images, px")
    parser.add_argument("--steps", type=int, default=6, help="steps of each in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="of the reference")
    parser.add_argument("--images", type=int, default=1024, help="images to score and embed")
    parser.add_argument("--gpu", action="store_true", help="measure a CUDA device instead, at the last size")
    parser.add_argument("--passes", action="store_true", help="compare ways to compute our gradient instead")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder with bench/")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    if (
        not (arguments.gpu or arguments.passes)
        and not (arguments.shared / "bench" / "reference_step.py").is_file()
    ):
        parser.error(f"no bench/reference_step.py in {arguments.shared}; name the folder with --shared")
    import torch  # noqa: PLC0415 (not for --help)

    figures: dict[str, Any] = {}
    if arguments.gpu:
        if not torch.cuda.is_available():
            parser.error("there is no CUDA device here; leave --gpu out")
        figures |= on_gpu(arguments.steps * arguments.rounds, arguments.images, arguments.sizes[-1])
    elif arguments.passes:
        for size in arguments.sizes:
            figures |= compare_passes(size, arguments.rounds)
    else:
        reference = load_reference(arguments.shared)
        for size in arguments.sizes:
            figures |= compare_steps(reference, size, arguments.steps, arguments.rounds, arguments.workers)
        figures |= compare_looks(arguments.images, arguments.sizes[0], arguments.sizes[-1], arguments.rounds)
    for name, value in figures.items():
        print(f"{name}: {value}")
    if arguments.json:
        settings = {k: v for k, v in vars(arguments).items() if k not in ("json", "shared")}
        threads = {"threads": torch.get_num_threads()}
        print(
            json.dumps({"benchmark": "step", **settings, **threads, "seeds": [0], **figures, **provenance()})
        )


if __name__ == "__main__":
    main()
