"""The page that Prometheus scrapes, by its own client library. Imported when somebody first asks for it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar as Pointer
from prometheus_client.utils import floatToGoString

from .metrics import Exemplar, Family, Metrics

Gauge = tuple[str, str, Mapping[tuple[tuple[str, str], ...], float]]
"""Name, help, value by labels; one whose name ends in `_total` is a counter."""


def render(metrics: Metrics, gauges: Iterable[Gauge], accept: str) -> tuple[bytes, str]:
    """The page and its media type: OpenMetrics, with exemplars, for those who accept it, else the text form."""
    registry = CollectorRegistry()
    registry.register(_Page(metrics, tuple(gauges)))
    encode, media = choose_encoder(accept)
    return encode(registry), media


class _Page:
    def __init__(self, metrics: Metrics, gauges: tuple[Gauge, ...]) -> None:
        self._metrics = metrics
        self._gauges = gauges

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        for family in self._metrics.families():
            yield _histogram(family) if family.is_histogram else _counter(family)
        for name, help_text, values in self._gauges:
            labels = [label for label, _ in next(iter(values), ())]
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            metric = kind(name, help_text, labels=labels)
            for pairs, value in values.items():
                metric.add_metric([text for _, text in pairs], value)
            yield metric


def _counter(family: Family) -> Metric:
    counter = CounterMetricFamily(family.name, family.help, labels=family.labels)
    for labels, value in tuple(family.values.items()):
        counter.add_metric(labels, value)
    return counter


def _histogram(family: Family) -> Metric:
    histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    bounds = [*map(floatToGoString, family.buckets), "+Inf"]
    for labels, cell in tuple(family.cells.items()):
        cumulated = itertools.accumulate(tuple(cell.counts))
        buckets: list[tuple[str, float] | tuple[str, float, Pointer]] = [
            (bound, count, _pointer(told)) if told else (bound, count)
            for bound, count, told in zip(bounds, cumulated, tuple(cell.exemplars), strict=True)
        ]
        histogram.add_metric(labels, buckets, cell.total)
    return histogram


def _pointer(told: Exemplar) -> Pointer:
    labels = {"operation_id": str(told.operation_id)}
    if told.trace_id:
        labels["trace_id"] = told.trace_id
    return Pointer(labels, told.value, told.at / 1e6)
