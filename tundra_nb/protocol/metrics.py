"""`/metrics`: for Prometheus, not for our clients."""

from __future__ import annotations

from .endpoint import Endpoint
from .words import TEXT

PAGE = Endpoint(
    method="GET",
    path="/metrics",
    summary="metrics as Prometheus scrapes them; OpenMetrics with exemplars for those who accept it",
    media=(TEXT,),
)
