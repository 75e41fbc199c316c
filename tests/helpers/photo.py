"""A photo's views on the CPU."""

from __future__ import annotations

import torch

from ldp.restore.photo_views import StoredViews
from ldp.types import ViewPair


def on_cpu(views: ViewPair) -> StoredViews:
    """Return views as restoring reads them."""
    return StoredViews(views, torch.device("cpu"))
