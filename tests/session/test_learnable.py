"""Which labels each tier learns from."""

from __future__ import annotations

from amatch_widgets.labels import LabelStore
from amatch_widgets.session.learnable import Learnable

INDEX = {f"i{k}": k for k in range(30)}


def _store(n_anomalies: int, n_normals: int = 4) -> LabelStore:
    store = LabelStore(None, test_share=0)
    for k in range(n_anomalies):
        store.set({f"i{k}": "anomaly"})
    for k in range(20, 20 + n_normals):
        store.set({f"i{k}": "normal"})
    return store


def test_every_third_anomaly_judges_and_no_normal() -> None:
    learnable = Learnable(_store(7), INDEX)
    assert learnable.judged().tolist() == [2, 5]
    assert sorted(learnable.deep()[1]) == [0, 1, 3, 4, 6, 20, 21, 22, 23]
    assert sorted(learnable.instant()[1]) == [0, 1, 2, 3, 4, 5, 6, 20, 21, 22, 23]


def test_the_deep_tier_keeps_the_first_two_anomalies() -> None:
    assert Learnable(_store(2), INDEX).judged().tolist() == []


def test_labelling_anew_moves_nobody_to_the_other_side() -> None:
    store = _store(7)
    learnable = Learnable(store, INDEX)
    store.set({"i2": "normal"})
    assert learnable.judged().tolist() == [5]
    assert learnable.deep()[1][2] == 0  # a normal now, and learnt from as one
    store.set({"i2": "anomaly"})
    store.set({"i0": "anomaly"}, note="sure")
    assert sorted(learnable.judged().tolist()) == [2, 5]


def test_held_out_labels_and_unknown_images_are_for_neither() -> None:
    store = LabelStore(None, test_share=0.5)
    for k in range(12):
        store.set({f"i{k}": "anomaly"})
    store.set({"elsewhere": "anomaly"})
    learnable = Learnable(store, INDEX)
    held_out = {INDEX[i] for i in store.for_split("test") if i in INDEX}
    assert held_out
    assert not held_out & set(learnable.instant()[1])
    assert set(learnable.judged().tolist()) <= set(learnable.instant()[1])
    assert learnable.deep()[0] == learnable.instant()[0] == store.version
