"""Whether to retrain now: one pure rule over what is known, with the reason in words.

A signal is not a decision. Broken data is mended, never trained on; one release happens at a time; one
drift episode is answered once; and where new models do not help, a person is told. Gathering the
signals and keeping the ledger are left to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum

from mlops_assets.spec import RetrainSpec
from mlops_assets.verdict import Verdict

MAX_UNSUCCESSFUL = 2
_ONE_SHIFT = timedelta(days=28)  # failed days that lie further apart are not of one shift
_WEEK = timedelta(days=7)


class Action(StrEnum):
    """What is to be done."""

    RETRAIN = "retrain"
    WAIT = "wait"
    MEND_DATA = "mend_data"
    NONE = "none"


class Cause(StrEnum):
    """Why something is to be done; the first that applies decides."""

    DATA = "data"
    NO_PRODUCTION_MODEL = "no_production_model"
    DRIFT = "drift"
    QUALITY = "quality"
    STALE = "stale"
    SCHEDULE = "schedule"


class Outcome(StrEnum):
    """What became of a retrain that was asked for.

    `REQUESTED`: no run has taken it up yet; `PENDING`: it is being trained, gated or released; `FAILED`: its run
    broke; `OVERTAKEN`: another version took its place before it began or before it was judged.
    """

    REQUESTED = "requested"
    PENDING = "pending"
    RELEASED = "released"
    NOT_RELEASED = "not_released"
    FAILED = "failed"
    OVERTAKEN = "overtaken"


@dataclass(frozen=True)
class WindowVerdict:
    """One monitor's verdict on one day: `FAIL` means drifted, or worse than promised.

    `reference_version` is the production version whose profile the day was compared with.
    """

    day: date
    kind: str
    verdict: Verdict
    reference_version: int | None


@dataclass(frozen=True)
class DataProblem:
    """Data that cannot be trusted at present: a failed schema, missing-value or skew check."""

    day: date
    check: str
    message: str


@dataclass(frozen=True)
class Signals:
    """Everything that the decision looks at.

    `windows` and `quality`: one verdict a day, oldest first, each against the present production version; what an
    earlier one met was answered by the promotion after it.
    `new_labels` counts labels known now of messages that came after the production model's training
    data (all there are, without a production model); `drifted_labels` those among them that lie in
    drifted windows. `in_flight` names the training, submission, candidate or canary under way.
    """

    model: str
    production_version: int | None = None
    production_since: datetime | None = None
    windows: tuple[WindowVerdict, ...] = ()
    quality: tuple[WindowVerdict, ...] = ()
    data_problems: tuple[DataProblem, ...] = ()
    new_labels: int = 0
    drifted_labels: int = 0
    in_flight: str | None = None
    schedule_due: bool = False


@dataclass(frozen=True)
class LedgerEntry:
    """One retrain that was requested: when (event time), for what, with how many labels, what came of it."""

    at: datetime
    key: str
    labels: int
    outcome: Outcome = Outcome.REQUESTED


@dataclass(frozen=True)
class RetrainDecision:
    """What to do and why; `key` identifies the episode (model, reference version, cause)."""

    action: Action
    cause: Cause | None
    key: str | None
    reason: str
    signals: Signals

    @property
    def labels(self) -> int:
        """The labels that the ledger is to remember for this decision."""
        return _labels(self.signals, self.cause)


@dataclass(frozen=True)
class _Case:
    """One reason to retrain that applies now, and the facts behind it in words.

    `began`: the first day of the episode, where it is one that retraining is to end.
    """

    cause: Cause
    because: str
    labels_needed: int
    began: date | None = None


def decide(signals: Signals, ledger: Sequence[LedgerEntry], spec: RetrainSpec, now: datetime) -> RetrainDecision:
    """Decide whether to retrain; the same inputs give the same decision.

    The strongest cause decides. Where it waits, or is exhausted (two challengers did not get released), only age
    and schedule may still ask for a retrain, since they answer for themselves; worse answers are the same shift.

    >>> from datetime import UTC
    >>> start = Signals("intent_classifier", new_labels=9000)
    >>> first = decide(start, [], RetrainSpec(), datetime(2026, 3, 1, tzinfo=UTC))
    >>> first.action.value, first.key
    ('retrain', 'intent_classifier/v0/no_production_model')
    """
    if signals.data_problems:
        return _mend(signals)
    ledger = [entry for entry in ledger if entry.outcome is not Outcome.OVERTAKEN]
    cases = _cases(signals, spec, now)
    if not cases:
        return RetrainDecision(Action.NONE, None, None, _quiet(signals, spec), signals)
    strongest = _judge(cases[0], signals, ledger, spec, now)
    if strongest.action is Action.RETRAIN:
        return strongest
    later = (case for case in cases[1:] if case.cause in (Cause.STALE, Cause.SCHEDULE))
    decisions = (_judge(case, signals, ledger, spec, now) for case in later)
    return next((decision for decision in decisions if decision.action is Action.RETRAIN), strongest)


def debounced(windows: Sequence[WindowVerdict], spec: RetrainSpec) -> tuple[WindowVerdict, ...]:
    """The failed among the last n windows where at least k of them failed, the latest included; else none.

    Days with too little data say nothing and take no part. With independent windows and a false-alarm rate a
    for each, k = 2 of n = 3 fires at a rate of about 2 a² a day.
    """
    judged = _judged(windows)[-spec.windows :]
    if not judged or judged[-1].verdict is not Verdict.FAIL:
        return ()
    since = judged[-1].day - _ONE_SHIFT
    failed = tuple(window for window in judged if window.verdict is Verdict.FAIL and window.day >= since)
    return failed if len(failed) >= spec.drifted else ()


def _judged(windows: Sequence[WindowVerdict]) -> list[WindowVerdict]:
    return [window for window in windows if window.verdict in (Verdict.PASS, Verdict.FAIL)]


def _episode_began(windows: Sequence[WindowVerdict], spec: RetrainSpec) -> date:
    """The first failed day of the last episode; as many quiet days on end as the debouncing looks at part two."""
    failed: list[date] = []
    quiet = 0
    for window in reversed(_judged(windows)):
        if window.verdict is Verdict.FAIL:
            failed.append(window.day)
            quiet = 0
        elif (quiet := quiet + 1) >= spec.windows:
            break
    return failed[-1]


def shift_began(decision: RetrainDecision, spec: RetrainSpec) -> date | None:
    """The first day of the shift that a decision is about; None where drift is not its cause.

    The drifted days that it rests on, and those before them that no quiet day parts from them.
    """
    if decision.cause is not Cause.DRIFT:
        return None
    windows = decision.signals.windows
    first = debounced(windows, spec)[0].day
    quiet = max((w.day for w in windows if w.verdict is Verdict.PASS and w.day < first), default=date.min)
    return min(window.day for window in windows if window.verdict is Verdict.FAIL and window.day > quiet)


def episode_key(model: str, reference_version: int | None, cause: Cause) -> str:
    """What makes two requests the same: the same model, compared with the same reference, for one cause."""
    return f"{model}/v{reference_version or 0}/{cause.value}"


def _reference(key: str) -> str:
    """Which model and version an episode is about."""
    return key.rpartition("/")[0]


def _mend(signals: Signals) -> RetrainDecision:
    shown = "; ".join(f"{p.day} {p.check}: {p.message}" for p in signals.data_problems[:3])
    more = len(signals.data_problems) - 3
    reason = f"data cannot be trusted, so nothing is trained on it: {shown}" + (f"; {more} more" if more > 0 else "")
    key = episode_key(signals.model, signals.production_version, Cause.DATA)
    return RetrainDecision(Action.MEND_DATA, Cause.DATA, key, reason, signals)


def _quiet(signals: Signals, spec: RetrainSpec) -> str:
    failed = sum(window.verdict is Verdict.FAIL for window in signals.windows)
    if failed:
        days = "day" if failed == 1 else "days"
        return f"drift on {failed} {days}, but not on {spec.drifted} of the last {spec.windows}, the latest among them"
    return "nothing calls for it: no drift and no loss of quality shown, model young enough"


def _cases(signals: Signals, spec: RetrainSpec, now: datetime) -> list[_Case]:
    """The reasons that apply, strongest first."""
    if signals.production_version is None:
        return [_Case(Cause.NO_PRODUCTION_MODEL, "there is no production model", spec.min_new_labels)]
    cases: list[_Case] = []
    if drifted := debounced(signals.windows, spec):
        because, began = _episode(drifted, "drifted", spec), _episode_began(signals.windows, spec)
        cases.append(_Case(Cause.DRIFT, because, spec.min_new_labels, began))
    if failed := debounced(signals.quality, spec):
        because, began = _episode(failed, "worse than promised", spec), _episode_began(signals.quality, spec)
        cases.append(_Case(Cause.QUALITY, because, spec.min_new_labels, began))
    age = now - signals.production_since if signals.production_since else timedelta(0)
    if age > timedelta(days=spec.max_age_days):
        because = f"production version is {age.days} days old, more than {spec.max_age_days:g}"
        cases.append(_Case(Cause.STALE, because, 1))
    if signals.schedule_due:
        cases.append(_Case(Cause.SCHEDULE, "the regular retrain is due", 1))
    return cases


def _episode(failed: Sequence[WindowVerdict], how: str, spec: RetrainSpec) -> str:
    days = ", ".join(str(window.day) for window in failed)
    return f"{failed[0].kind} {how} on {days} ({len(failed)} of the last {spec.windows} windows)"


def _labels(signals: Signals, cause: Cause | None) -> int:
    return signals.drifted_labels if cause is Cause.DRIFT else signals.new_labels


def _judge(
    case: _Case, signals: Signals, ledger: Sequence[LedgerEntry], spec: RetrainSpec, now: datetime
) -> RetrainDecision:
    """What one case comes to: the first obstacle decides, without one it is a retrain."""
    key = episode_key(signals.model, signals.production_version, case.cause)
    same = [entry for entry in ledger if entry.key == key and entry.outcome is not Outcome.FAILED]
    labels = _labels(signals, case.cause)
    obstacles: tuple[tuple[Action, Callable[[], str | None]], ...] = (
        (Action.WAIT, lambda: _busy(signals, key, ledger)),
        (Action.NONE, lambda: _exhausted(case, same)),
        (Action.WAIT, lambda: _too_few_labels(case, same, labels, spec)),
        (Action.WAIT, lambda: _cooling(ledger, spec, now)),
        (Action.WAIT, lambda: _over_budget(ledger, spec, now)),
    )
    for action, obstacle in obstacles:
        if (why := obstacle()) is not None:
            return RetrainDecision(action, case.cause, key, f"{case.because}, but {why}", signals)
    return RetrainDecision(Action.RETRAIN, case.cause, key, case.because, signals)


def _busy(signals: Signals, key: str, ledger: Sequence[LedgerEntry]) -> str | None:
    if signals.in_flight:
        return f"{signals.in_flight} is under way: one at a time"
    for entry in ledger:
        if entry.outcome in (Outcome.REQUESTED, Outcome.PENDING) and _reference(entry.key) == _reference(key):
            return f"a retrain was requested at {_shown(entry.at)} and has not ended: one at a time"
    return None


def _exhausted(case: _Case, same: Sequence[LedgerEntry]) -> str | None:
    """Whether retraining does not end an episode; what is no episode is kept in bounds by labels and budget."""
    began = case.began
    tried = [] if began is None else [entry for entry in same if entry.at.date() >= began]
    if len(tried) < MAX_UNSUCCESSFUL:
        return None
    outcomes = ", ".join(f"{_shown(entry.at)} {entry.outcome.value.replace('_', ' ')}" for entry in tried)
    return f"{len(tried)} retrains for it did not help ({outcomes}): a person is told, no further one is started"


def _too_few_labels(case: _Case, same: Sequence[LedgerEntry], labels: int, spec: RetrainSpec) -> str | None:
    tried = [entry.labels for entry in same if entry.outcome in (Outcome.NOT_RELEASED, Outcome.RELEASED)]
    needed = max(tried) + spec.min_new_labels if tried else case.labels_needed
    if labels >= needed:
        return None
    since = (
        "the last challenger, trained on fewer, was no answer to it" if tried else "there is too little to learn from"
    )
    return f"only {labels} of {needed} labels are known: {since}"


def _cooling(ledger: Sequence[LedgerEntry], spec: RetrainSpec, now: datetime) -> str | None:
    finished = [entry.at for entry in ledger if entry.outcome is not Outcome.FAILED]
    if not finished or now - max(finished) >= timedelta(days=spec.cooldown_days):
        return None
    until = max(finished) + timedelta(days=spec.cooldown_days)
    return f"the last retrain was at {_shown(max(finished))}: cooling down until {_shown(until)}"


def _over_budget(ledger: Sequence[LedgerEntry], spec: RetrainSpec, now: datetime) -> str | None:
    recent = sorted(entry.at for entry in ledger if now - entry.at < _WEEK)
    if len(recent) < spec.max_per_week:
        return None
    free = recent[-spec.max_per_week] + _WEEK
    return f"{len(recent)} retrains within 7 days use up the budget of {spec.max_per_week}: next at {_shown(free)}"


def _shown(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M")
