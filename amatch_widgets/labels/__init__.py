"""What people said about the images: the store, its journal, the held-out share, and tables."""

from __future__ import annotations

from amatch_widgets.labels.own import OwnLabels
from amatch_widgets.labels.store import ANOMALY, CLASSES, NORMAL, SPLITS, TEST, TRAIN, Label, LabelStore

__all__ = ["ANOMALY", "CLASSES", "NORMAL", "SPLITS", "TEST", "TRAIN", "Label", "LabelStore", "OwnLabels"]
