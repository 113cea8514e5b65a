"""What Prometheus reads: the replicas' sums and the rollouts, under the names that alerts and dashboards use.

Rendered where all of it comes together, in the guard, so that it is the same whichever replica is scraped;
`replica` is a label, and a replica that has gone takes its sums with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from mlops_assets.serving.metrics import BUCKETS_MS, Figures, Latencies

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_COUNTERS = {
    "mlops_requests": ("Requests to an arm, by what came of them.", ("arm", "version", "outcome")),
    "mlops_copies": ("Copies of requests for a canary in a shadow step, by what came of them.", ("version", "outcome")),
    "mlops_feature_lookups": ("Look-ups of customer features: hit, default or stale.", ("outcome",)),
    "mlops_log_failures": ("Records that could not be written to the log.", ()),
    "mlops_batches": ("Runs of the stable version's network.", ()),
    "mlops_batched_requests": ("Requests in these runs; divided by the runs, the batch size.", ()),
}
_GAUGES = {
    "mlops_queue_length": "Requests that wait for the stable version.",
    "mlops_log_last_record_timestamp_seconds": "When a prediction was last logged.",
    "mlops_refused_version": "Number of the version that is to serve and could not be loaded; 0: none.",
}
_ROLLOUT = {
    "mlops_rollout_phase": ("1 for the phase that the newest rollout is in.", ("phase",)),
    "mlops_rollout_weight": ("Share of customers whom the canary answers.", ()),
    "mlops_rollout_step": ("Number of the ladder's step, from 1.", ()),
    "mlops_rollout_started_timestamp_seconds": ("When the first step began.", ()),
    "mlops_rollout_expected_seconds": ("Expected until the verdict.", ()),
    "mlops_rollout_evidence": ("A guard's e-value against the canary.", ("guard",)),
    "mlops_rollout_evidence_limit": ("The e-value from which a guard stops the canary.", ("guard",)),
}
_LATENCY = "mlops_request_latency_seconds"
_REPLICA = "mlops_replica_silent_seconds"
_REGISTRY = "mlops_registry_reachable"

NAMES = frozenset(
    {
        *(f"{name}_total" for name in _COUNTERS),
        *_GAUGES,
        *_ROLLOUT,
        *(f"{_LATENCY}_{part}" for part in ("bucket", "count", "sum")),
        _REPLICA,
        _REGISTRY,
    }
)
"""Every series that there may be."""


@dataclass(frozen=True)
class Heard:
    """What a replica last said, by model, and how many seconds ago."""

    figures: Mapping[str, Figures]
    seconds_ago: float


def exposition(replicas: Mapping[str, Heard], rollouts: Mapping[str, Mapping[str, Any]], *, registry_ok: bool) -> str:
    """The text that `GET /metrics` answers.

    Parameters
    ----------
    rollouts : by model, as the guard describes the newest one.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected([*_of_replicas(replicas), *_of_rollouts(rollouts), _reachable(registry_ok)]))
    return generate_latest(registry).decode()


class _Collected:
    """Families that are ready, as prometheus_client wants to be given them."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _of_replicas(replicas: Mapping[str, Heard]) -> list[Metric]:
    common = ["model", "replica"]
    counters = {n: CounterMetricFamily(n, text, labels=[*common, *more]) for n, (text, more) in _COUNTERS.items()}
    gauges = {name: GaugeMetricFamily(name, text, labels=common) for name, text in _GAUGES.items()}
    latency = HistogramMetricFamily(_LATENCY, "Time to answer.", labels=[*common, "arm", "version"])
    silent = GaugeMetricFamily(_REPLICA, "Since a replica last told the guard its counts.", labels=["replica"])
    for replica, heard in replicas.items():
        silent.add_metric([replica], heard.seconds_ago)
        for model, figures in heard.figures.items():
            own = [model, replica]
            _count(counters, own, figures)
            gauges["mlops_queue_length"].add_metric(own, figures.pending)
            gauges["mlops_refused_version"].add_metric(own, figures.refused)
            if figures.logged_at is not None:
                gauges["mlops_log_last_record_timestamp_seconds"].add_metric(own, figures.logged_at)
            for (arm, version), times in figures.latencies.items():
                latency.add_metric([*own, arm, str(version)], _buckets(times), sum_value=times.total_ms / 1000)
    return [*counters.values(), *gauges.values(), latency, silent]


def _count(counters: Mapping[str, CounterMetricFamily], own: list[str], figures: Figures) -> None:
    for (arm, version, outcome), number in figures.requests.items():
        counters["mlops_requests"].add_metric([*own, arm, str(version), outcome], number)
    for (version, copied), number in figures.copies.items():
        counters["mlops_copies"].add_metric([*own, str(version), copied], number)
    for lookup, number in figures.lookups.items():
        counters["mlops_feature_lookups"].add_metric([*own, lookup], number)
    counters["mlops_log_failures"].add_metric(own, figures.log_failures)
    counters["mlops_batches"].add_metric(own, figures.batches)
    counters["mlops_batched_requests"].add_metric(own, figures.batched)


def _buckets(times: Latencies) -> list[tuple[str, float]]:
    bounds = [*(str(bound / 1000) for bound in BUCKETS_MS), "+Inf"]
    return list(zip(bounds, accumulate(times.counts), strict=True))


def _of_rollouts(rollouts: Mapping[str, Mapping[str, Any]]) -> list[Metric]:
    common = ["model", "version"]
    families = {n: GaugeMetricFamily(n, text, labels=[*common, *more]) for n, (text, more) in _ROLLOUT.items()}
    for model, rollout in rollouts.items():
        if rollout["phase"] == "none":
            continue
        own = [model, str(rollout["version"])]
        families["mlops_rollout_phase"].add_metric([*own, rollout["phase"]], 1)
        families["mlops_rollout_weight"].add_metric(own, rollout["weight"])
        families["mlops_rollout_step"].add_metric(own, rollout["step"]["number"])
        if rollout["started_at"]:
            started = datetime.fromisoformat(rollout["started_at"]).timestamp()
            families["mlops_rollout_started_timestamp_seconds"].add_metric(own, started)
        expected = rollout["decision"]["expected_seconds_to_verdict"]
        if expected is not None:
            families["mlops_rollout_expected_seconds"].add_metric(own, expected)
        for claim in rollout["decision"]["claims"]:
            group, _, guard = claim["name"].partition(".")
            if group == "guard":
                families["mlops_rollout_evidence"].add_metric([*own, guard], claim["value"])
                families["mlops_rollout_evidence_limit"].add_metric([*own, guard], claim["limit"])
    return list(families.values())


def _reachable(registry_ok: bool) -> Metric:
    family = GaugeMetricFamily(_REGISTRY, "1 while the model registry answers.")
    family.add_metric([], float(registry_ok))
    return family
