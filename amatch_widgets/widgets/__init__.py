"""The dashboard in the notebook: views of a session, and nothing the engine would miss."""

from __future__ import annotations

from amatch_widgets.widgets.view import require_ipyvuetify

require_ipyvuetify()  # before the templates are read: on 1.x they would come up empty, without a word

from amatch_widgets.widgets.controls import Controls  # noqa: E402 (the check comes first)
from amatch_widgets.widgets.dashboard import Dashboard  # noqa: E402
from amatch_widgets.widgets.detail import Detail  # noqa: E402
from amatch_widgets.widgets.gallery import Gallery  # noqa: E402
from amatch_widgets.widgets.map import Map  # noqa: E402
from amatch_widgets.widgets.plots import Plots  # noqa: E402
from amatch_widgets.widgets.preview import Preview  # noqa: E402

__all__ = ["Controls", "Dashboard", "Detail", "Gallery", "Map", "Plots", "Preview"]
