"""Which labels are learnt from."""

from __future__ import annotations

from amatch_widgets.labels import LabelStore
from amatch_widgets.session.learnable import Learnable

INDEX = {f"i{k}": k for k in range(30)}


def test_labels_come_as_positions_and_classes_with_their_version() -> None:
    store = LabelStore(None, test_share=0)
    store.set({"i3": "anomaly", "i5": "normal"})
    learnable = Learnable(store, INDEX)
    assert learnable() == (store.version, {3: 1, 5: 0})
    store.set({"i3": "normal"})
    assert learnable() == (store.version, {3: 0, 5: 0})


def test_without_a_change_the_same_mapping_comes_again() -> None:
    store = LabelStore(None, test_share=0)
    store.set({"i3": "anomaly"})
    learnable = Learnable(store, INDEX)
    assert learnable()[1] is learnable()[1]


def test_held_out_labels_and_unknown_images_are_left_out() -> None:
    store = LabelStore(None, test_share=0.5)
    for k in range(12):
        store.set({f"i{k}": "anomaly"})
    store.set({"elsewhere": "anomaly"})
    held_out = {INDEX[i] for i in store.for_split("test") if i in INDEX}
    assert held_out
    assert set(Learnable(store, INDEX)()[1]) == set(range(12)) - held_out
