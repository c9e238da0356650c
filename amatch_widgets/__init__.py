"""Find the few rare objects in a very large set of images, from a handful of labels."""

from __future__ import annotations
