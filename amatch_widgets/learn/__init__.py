"""The learning core: augmentation, backbones, FixMatch, its trainer and the metrics."""
