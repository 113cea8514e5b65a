"""The story: from the first history to a rolled-back bad version, one step after the other.

Everything is asked for through the public surface (inbox, HTTP endpoint, `mlops submit`) and done by
Dagster's daemon and the endpoint's guard; the story only sends, waits and shows what was decided.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from mlops_assets.demo.data import DemoData, day_after
from mlops_assets.demo.quality import compare_versions
from mlops_assets.demo.report import Report, StoryFailed
from mlops_assets.demo.traffic import Customers
from mlops_assets.monitoring.predictions import read_predictions, served_features
from mlops_assets.monitoring.windows import read_window
from mlops_assets.ops.inbox import put
from mlops_assets.ops.submit import submit_artefact
from mlops_assets.ops.supervisor import Supervisor
from mlops_assets.resources.dagster_api import DagsterApi, Materialization
from mlops_assets.resources.endpoint import Endpoint, EndpointUnavailable
from mlops_assets.resources.notify import told
from mlops_assets.resources.registry import Registry, Version
from mlops_assets.settings import Settings
from mlops_assets.spec import ModelSpec

T = TypeVar("T")
LOAD = 400  # messages of one round of repeated load
SLOW = 1.5  # times the canary's limit: what the bad version takes for an answer
LAST_DAYS = 3  # of the shifted days: the rows on which before and after are compared


class Story:
    """One telling of the loop, on one platform, for one model."""

    def __init__(
        self, settings: Settings, spec: ModelSpec, data: DemoData, platform: Supervisor, report: Report
    ) -> None:
        self.settings = settings
        self.spec = spec
        self.model = spec.name
        self.home = settings.model_home(spec.name)
        self.data = data
        self.platform = platform
        self.report = report
        self.dagster = DagsterApi(settings)
        self.endpoint = Endpoint(settings)
        self.registry = Registry(settings)
        self.customers = Customers(settings, spec.name, data.traffic)
        self._pause = threading.Event()

    def tell(self) -> None:
        """Run every step.

        Raises:
            StoryFailed: a step did not come out as it must.
        """
        self._history()
        first = self._first_model()
        self._ordinary_days()
        waiting = self._shift(self.data.shifted_days)
        challenger = self._retrain()
        last = self._canary(challenger, waiting)
        self._remaining_days(waiting[1:])
        self._quality(first, last)
        further = self._further_retrain(last)
        self._bad_version(self._canary(further, []) if further else last)

    # the steps

    def _history(self) -> None:
        put(self.data.customer_events, self.settings.customer_events)
        put(self.data.messages, self.home.incoming / "messages")
        with self.report.step("features are built and served") as step:
            online = self._until("online features", lambda: self._latest("online_features"))
            check = self._until(
                "the skew check",
                lambda: self.dagster.checks(self.model, "online_features").get("served_equals_offline"),
            )
            step.done(
                f"{online.metadata['customers']} customers online; {check['description']}",
                page=self.dagster.asset_url(self.model, "online_features"),
                good=check["success"],
            )
        with self.report.step("history comes in") as step:
            quarantine = self._until("validated history", lambda: self._latest("quarantine"))
            landed = self._latest("messages")
            rows = landed.metadata["dagster/row_count"] if landed else 0
            step.done(
                f"{rows} messages validated, {quarantine.metadata['faults']} faults quarantined with their reason",
                evidence=self.home.reports / "data_quality.html",
                page=self.dagster.asset_url(self.model, "quarantine"),
            )

    def _first_model(self) -> Version:
        with self.report.step("the first model is trained, gated and released") as step:
            version = self._until("a production version", lambda: self._past_the_gate(self._production))
            self._until("the endpoint to answer with it", lambda: self._serving() == version.version)
            self._add_version(version, "stable")
            step.done(self._gate_line(version), evidence=self._gate_file(version), page=self._run_page(version))
        return version

    def _ordinary_days(self) -> None:
        days = self.data.ordinary_days
        with self.report.step(f"{len(days)} ordinary days") as step:
            for day in days:
                self._live_through(day)
            self._judged(days[-1])
            verdicts = [window["verdict"] for window in self._windows(days)]
            quiet = len(verdicts) == len(days) and not {"fail", "error"} & {*verdicts}
            decision = self._decision()
            step.done(
                f"drift is quiet on {verdicts.count('pass')} of {len(days)} days; alerts: {self._alerts()}; "
                f"retrain: {decision['reason']}",
                evidence=self.home.reports / "drift" / f"{days[-1]:%Y-%m-%d}.html",
                page=self.dagster.asset_url(self.model, "prediction_drift"),
                good=quiet and decision["action"] != "retrain",
            )

    def _shift(self, days: list[datetime]) -> list[datetime]:
        """Live through shifted days until the policy asks for a retrain; returns the days that are left."""
        found: datetime | None = None
        with self.report.step("the traffic shifts") as step:
            for number, day in enumerate(days, start=1):
                self._live_through(day)
                self._judged(day)
                verdict, decision = self._windows([day])[0], self._decision()
                self._say(f"{day:%Y-%m-%d}: drift {verdict['verdict']}; {decision['action']}: {decision['reason']}")
                if found is None and verdict["verdict"] == "fail":
                    found = day
                if decision["action"] == "retrain":
                    first = f"drift found on {found:%Y-%m-%d}" if found else "no drift found"
                    step.done(
                        f"{first}; after shifted day {number} a retrain is asked for: {decision['reason']}",
                        evidence=decision["evidence"],
                        page=self.dagster.asset_url(self.model, "retrain_decision"),
                    )
                    return days[number:]
            raise StoryFailed(f"no retrain was asked for within {len(days)} shifted days: {self._decision()['reason']}")

    def _retrain(self) -> Version:
        with self.report.step("a challenger is trained and gated") as step:
            challenger = self._until("a gated challenger", lambda: self._past_the_gate(self._waiting_version))
            step.done(
                self._gate_line(challenger), evidence=self._gate_file(challenger), page=self._run_page(challenger)
            )
        return challenger

    def _further_retrain(self, last: Version) -> Version | None:
        """The challenger of a retrain that was asked for since `last`; None: there was none, or it was sent back.

        Of two versions on their way at once one would take the other's place: whoever comes next has to wait for it.
        """
        with self.report.step("whether the last days asked for another retrain") as step:
            decisions = self.dagster.materializations(self.model, "retrain_decision", limit=50)
            if not any(d.metadata["action"] == "retrain" and d.at > last.created_at for d in decisions):
                step.done("none was asked for")
                return None
            self._until("another gated challenger", lambda: self._waiting_version() or self._sent_back())
            challenger = self._waiting_version()
            if challenger is None:
                step.done(f"the gate sent it back: {self._sent_back()}")
                return None
            step.done(
                self._gate_line(challenger), evidence=self._gate_file(challenger), page=self._run_page(challenger)
            )
        return challenger

    def _canary(self, challenger: Version, waiting: list[datetime]) -> Version:
        with self.report.step(
            f"version {challenger.version} takes {self.spec.canary.weights[0]:.0%} as canary"
        ) as step:
            day = waiting[0] if waiting else self.data.shifted_days[-1]
            self._until("the canary to be warm", lambda: self._rollout(challenger).get("weight"))
            if waiting:
                self._live_through(day, close=False)
            again = self._load_until(day, lambda: self._settled(challenger))
            outcome = self._until("the verdict to be carried out", lambda: self._outcome(challenger))
            reason = self._rollout(challenger)["reason"]
            if outcome != "succeeded":
                raise StoryFailed(f"version {challenger.version} was not promoted: {reason}")
            self._until("the endpoint to answer with it", lambda: self._serving() == challenger.version)
            if waiting:
                self._close(day)
                self._judged(day)
            self._add_version(challenger, "canary, then stable")
            step.done(
                f"promoted: {reason}; the traffic is thin, so messages of the day were sent again {again} times, "
                "under fresh ids and without labels",
                evidence=self.home.rollout / "state.json",
                page=f"{self.settings.endpoint}/models/{self.model}/rollout/page",
            )
        return challenger

    def _remaining_days(self, days: list[datetime]) -> None:
        with self.report.step(f"{len(days)} more shifted days with the new version") as step:
            for day in days:
                self._live_through(day)
            if days:
                self._judged(days[-1])
            decision = self._decision()
            step.done(
                f"retrain: {decision['reason']}",
                evidence=decision["evidence"],
                page=self.dagster.asset_url(self.model, "retrain_decision"),
            )

    def _quality(self, first: Version, last: Version) -> None:
        with self.report.step("quality before and after") as step:
            days = self.data.shifted_days[-LAST_DAYS:]
            quality = compare_versions(self.spec, self.data.traffic, self._served_features(), days, [first, last])
            self.report.quality = quality
            unseen = last.trained_until <= days[0]
            step.done(
                f"weighted F1 {quality['before']:.3f} -> {quality['after']:.3f} on {quality['rows']} rows of the last "
                f"{len(days)} shifted days, {'none' if unseen else 'some'} of them trained on",
                evidence=self.report.path,
                good=unseen and quality["after"] > quality["before"],
            )

    def _bad_version(self, good: Version) -> None:
        from mlops_assets.demo.bad_version import make_bad_version

        with self.report.step("a bad version is let past the gate and rolls itself back") as step:
            folder = self.settings.home.resolve() / "demo" / "bad_version"
            make_bad_version(good.artefact, folder, at_least_ms=SLOW * self.spec.canary.max_p99_ms)
            submit_artefact(
                self.settings,
                self.model,
                folder,
                waiver_reason="demo: a version with its labels in the wrong order, and slow",
                waived_by="demo operator",
            )
            bad = self._until("the waived version", self._waiting_version)
            self._until("its canary to be warm", lambda: self._rollout(bad).get("weight"))
            failed_before = self.customers.ledger.failed
            self._load_until(self.data.shifted_days[-1], lambda: self._settled(bad))
            outcome = self._until("the rollback to be recorded", lambda: self._outcome(bad))
            failed = self.customers.ledger.failed - failed_before
            self._add_version(bad, "canary")
            step.done(
                f"{outcome}: {self._rollout(bad)['reason']}; {failed} requests failed, version {good.version} answers",
                evidence=self.home.rollout / "state.json",
                page=f"{self.settings.endpoint}/models/{self.model}/rollout/page",
                good=outcome == "failed" and failed == 0 and self._serving() == good.version,
            )

    # days

    def _live_through(self, day: datetime, *, close: bool = True) -> None:
        end = day_after(day)
        count = self.customers.send(day, end)
        labels = self.customers.tell_labels(end)
        self._say(f"{day:%Y-%m-%d}: {count} messages answered, {labels} labels came back")
        if close:
            self._close(day)

    def _close(self, day: datetime) -> None:
        self.endpoint.set_clock(day_after(day))

    def _judged(self, day: datetime) -> None:
        """Wait until the day's window was judged and the retrain policy has looked at it."""
        self._until(f"{day:%Y-%m-%d} to be judged", lambda: self._decided_after(day))

    def _decided_after(self, day: datetime) -> bool:
        latest = self._latest("retrain_decision")
        return latest is not None and datetime.fromisoformat(latest.metadata["judged_until"]) >= day_after(day)

    def _decision(self) -> dict[str, Any]:
        latest = self._latest("retrain_decision")
        return dict(latest.metadata) if latest else {"action": "none", "reason": "not decided yet", "evidence": ""}

    def _windows(self, days: Iterable[datetime]) -> list[dict[str, Any]]:
        found = [read_window(self.home.windows, "drift", day) for day in days]
        return [window for window in found if window is not None]

    # releases

    def _waiting_version(self) -> Version | None:
        """A version that is past the gate and was not judged yet."""
        known = {version["version"] for version in self.report.versions}
        for alias in ("canary", "candidate"):
            version = self.registry.by_alias(self.model, alias)
            if version is not None and version.version not in known:
                return version
        return None

    def _production(self) -> Version | None:
        return self.registry.by_alias(self.model, "production")

    def _past_the_gate(self, look: Callable[[], Version | None]) -> Version | None:
        """What `look` finds; a gate that says no ends the wait for it."""
        found = look()
        if found is None and (why := self._sent_back()):
            raise StoryFailed(f"the gate sent the candidate back: {why}")
        return found

    def _sent_back(self) -> str | None:
        """Why the gate said no to the newest candidate, if it did."""
        gate = self.dagster.checks(self.model, "evaluation").get("gate")
        return str(gate["description"]) if gate is not None and not gate["success"] else None

    def _rollout(self, version: Version) -> dict[str, Any]:
        rollout = self.endpoint.rollout(self.model)
        return rollout if rollout.get("version") == version.version else {}

    def _settled(self, version: Version) -> bool:
        try:
            phase = self._rollout(version).get("phase")
        except EndpointUnavailable:  # its guard is being started anew; who waits for the verdict has a deadline
            return False
        return phase in ("promoting", "sealed", "succeeded", "failed", "inconclusive")

    def _outcome(self, version: Version) -> str | None:
        outcome = self.registry.get(self.model, version.version).tags.get("rollout")
        return outcome if outcome in ("succeeded", "failed", "inconclusive") else None

    def _serving(self) -> int | None:
        stable = self.endpoint.health()["models"][self.model]["stable"]
        return stable["version"] if stable else None

    def _load_until(self, day: datetime, settled: Callable[[], bool]) -> int:
        """Send the day's messages again and again until the rollout is judged; returns how many were sent."""
        cap = self.spec.canary.max_minutes * 60 * self.settings.canary_time_scale + 60
        deadline = time.monotonic() + cap
        sent = 0
        while not settled():
            self.platform.require_alive()
            if time.monotonic() > deadline:
                raise StoryFailed(f"the canary was not judged within {cap:.0f} s")
            late = day + timedelta(hours=23, minutes=59)
            sent += self.customers.repeat(day, day_after(day), at=late, limit=LOAD)
        return sent

    # looking

    def _served_features(self) -> pl.DataFrame:
        """The features that the endpoint looked up for each message."""
        served = read_predictions(self.home.predictions).rows
        values = served_features(served, list(self.spec.features.defaults))
        message_of = {prediction: message for message, prediction in self.customers.ledger.prediction_of.items()}
        ids = served["prediction_id"].replace_strict(message_of, default=None, return_dtype=pl.String)
        return values.with_columns(message_id=ids)

    def _latest(self, asset: str) -> Materialization | None:
        found = self.dagster.materializations(self.model, asset)
        return found[0] if found else None

    def _gate_line(self, version: Version) -> str:
        gate = self.registry.evidence(self.model, version.version)["gate"]
        return f"version {version.version}: {gate['decision']['summary']}; F1 {gate['metrics']['f1_weighted']:.3f}"

    def _gate_file(self, version: Version) -> Path:
        return self.home.evidence / "gate" / f"{version.artefact_digest}.json"

    def _alerts(self) -> str:
        """What people were told so far."""
        return ", ".join(alert["title"] for alert in told(self.settings)) or "none"

    def _run_page(self, version: Version) -> str:
        return f"{self.settings.mlflow_url}/#/runs/{version.run_id}"

    def _add_version(self, version: Version, arm: str) -> None:
        found = self.registry.get(self.model, version.version)
        gate = self.registry.evidence(self.model, version.version)["gate"]
        verdict = f"gate {found.tags.get('gate')}, rollout {found.tags.get('rollout')}"
        entry = {
            "version": version.version,
            "arm": arm,
            "f1": gate["metrics"]["f1_weighted"],
            "verdict": verdict,
            "mlflow": self._run_page(version),
        }
        self.report.versions.append(entry)

    def _until(self, what: str, look: Callable[[], T | None], timeout: float = 900.0) -> T:
        """Poll until `look` finds something; the daemon offers nothing to wait on."""
        deadline = time.monotonic() + timeout
        with self.report.console.status(f"waiting for {what}"):
            while True:
                found = look()
                if found:
                    return found
                self.platform.require_alive()
                if time.monotonic() > deadline:
                    raise StoryFailed(f"waited {timeout:.0f} s for {what}; look at {self.settings.dagster_url}/runs")
                self._pause.wait(0.5)

    def _say(self, line: str) -> None:
        self.report.console.print(f"  {line}", style="dim")
