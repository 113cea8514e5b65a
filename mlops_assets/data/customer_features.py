"""What a customer's purchases say about them at each moment: rolling figures over the last 90 days.

Knows the event frame and how its figures are counted; joining them to messages as known at that time, and serving
them, is left to the feature store.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from mlops_assets.data.contract import ColumnContract, Rule, Validated, apply_contract, present, required
from mlops_assets.data.tables import EVENT_SCHEMA, KNOWN_TIME_SCHEMA
from mlops_assets.data.validation import NO_TIME_ZONE

_WINDOW = pl.duration(days=90)
_SUMS = ("orders", "purchased", "lines", "return_lines")
_DAY_US = 86_400_000_000
_EVENT, _CUSTOMER = "event_timestamp", "customer_id"


def validate_events(events: pl.DataFrame) -> Validated:
    """Check customer events: who, when (with a time zone), and counts and amounts that can be added up.

    Parameters:
        events: Events with canonical column names (`tables.to_events`), any types. `amount` and `qty` are net of
            returns and may be negative; `lines` counts all lines, `return_lines` those of them that are returns.

    Raises:
        MissingColumn: a canonical column is absent.
    """
    return apply_contract(events, _contract(events))


def required_of_events(events: pl.DataFrame) -> list[str]:
    """The columns of `events` in which the contract allows no value to be missing: those that the features read.

    >>> required_of_events(pl.DataFrame())
    ['customer_id', 'event_timestamp', 'lines', 'amount', 'return_lines', 'return_amount']
    """
    return required(_contract(events))


def merge_events(files: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The good events of several files, of which one may repeat another's, as exports that overlap do.

    An event has no id: what one file has twice happened twice, what two files have happened once, and was known when
    the first of them says so. `known_timestamp` is added where a file has none.

    >>> from datetime import UTC, datetime
    >>> once = pl.DataFrame({"customer_id": ["c"], "event_timestamp": [datetime(2026, 1, 1, tzinfo=UTC)], "lines": [2],
    ...     "qty": [2], "amount": [10.0], "return_lines": [0], "return_amount": [0.0], "country": ["NL"]})
    >>> merge_events([once, once]).height, merge_events([once, pl.concat([once, once])]).height
    (1, 2)
    """
    identity, known = list(EVENT_SCHEMA), "known_timestamp"
    numbered = [
        file.select(*identity, known if known in file.columns else pl.col(_EVENT).alias(known))
        .sort(known)
        .with_columns(copy=pl.int_range(pl.len()).over(identity))
        for file in (pl.DataFrame(schema=EVENT_SCHEMA | KNOWN_TIME_SCHEMA), *files)
    ]
    return pl.concat(numbered).sort(known).unique([*identity, "copy"], keep="first").drop("copy")


def customer_features(events: pl.DataFrame) -> pl.DataFrame:
    """The figures of every customer whenever they changed, each from what was known by then.

    Parameters:
        events: Good events of `validate_events`, any order, n rows. `known_timestamp`, where present, is when an
            event reached us; otherwise an event is known when it happens.

    Returns:
        One row per customer and moment at which an event became known, sorted by both: `created_timestamp` is that
        moment, and `event_timestamp` the time t of the last event known by then. Of the events known by then, the
        window is (t - 90 days, t]:
        `orders_90d` events with at least one purchased line; `spend_90d` purchases before returns, in the
        currency of `amount`, to a millionth; `return_share_90d` returned lines of all lines, 0..1;
        `mean_basket_90d` spend per order, 0 without orders; `tenure_days` days since the first event.

    >>> from datetime import UTC, datetime
    >>> from mlops_assets.spec import FEATURES
    >>> at = [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 11, tzinfo=UTC)]
    >>> events = pl.DataFrame({"customer_id": ["c", "c"], "event_timestamp": at, "lines": [2, 2], "qty": [2, 0],
    ...     "amount": [10.0, 15.0], "return_lines": [0, 1], "return_amount": [0.0, 5.0], "country": ["NL", "NL"]})
    >>> customer_features(events).select(FEATURES).row(1)
    (2.0, 30.0, 0.25, 15.0, 10.0)
    """
    entering = _entering(events)
    return (
        _summed(pl.concat([entering, _leaving(entering)], how="diagonal"))
        .with_columns(pl.col(_SUMS).cum_sum().over(_CUSTOMER))
        # adding and taking away leaves a rounding error behind, also below zero
        .with_columns(pl.col("purchased").clip(0).round(6).alias("spend_90d"))
        .select(
            _CUSTOMER,
            pl.col("last").alias(_EVENT),
            pl.col("known").alias("created_timestamp"),
            pl.col("orders").cast(pl.Float64).alias("orders_90d"),
            "spend_90d",
            _ratio("return_lines", "lines").alias("return_share_90d"),
            _ratio("spend_90d", "orders").alias("mean_basket_90d"),
            ((pl.col("last") - pl.col("first")).dt.total_microseconds() / _DAY_US).alias("tenure_days"),
        )
        .sort(_CUSTOMER, "created_timestamp")
    )


def _entering(events: pl.DataFrame) -> pl.DataFrame:
    """What each event adds to the window from when it is known."""
    known = "known_timestamp" if "known_timestamp" in events.columns else _EVENT
    return events.select(
        _CUSTOMER,
        pl.col(known).alias("known"),
        pl.col(_EVENT).alias("first"),
        pl.col(_EVENT).alias("last"),
        (pl.col("lines") > pl.col("return_lines")).cast(pl.Int64).alias("orders"),
        # rounding may leave a pure return a hair below zero
        (pl.col("amount") + pl.col("return_amount")).clip(0).alias("purchased"),
        "lines",
        "return_lines",
    )


def _leaving(entering: pl.DataFrame) -> pl.DataFrame:
    """What each event takes away again, from when one is known that is a window later; at once if it came so late."""
    ends = (
        _summed(entering)
        .select(_CUSTOMER, "last", pl.col("known").alias("left"))
        .unique([_CUSTOMER, "last"], keep="first")
    )
    return (
        entering.with_columns(pl.col("last") + _WINDOW)
        .sort("last")
        .join_asof(ends.sort("last"), on="last", by=_CUSTOMER, strategy="forward", check_sortedness=False)
        .drop_nulls("left")
        .select(_CUSTOMER, pl.max_horizontal("known", "left").alias("known"), -pl.col(_SUMS))
    )


def _summed(changes: pl.DataFrame) -> pl.DataFrame:
    """One row per customer and known time, in order of the latter, with the first and last event time known by then."""
    return (
        changes.group_by(_CUSTOMER, "known")
        .agg(pl.col("first").min(), pl.col("last").max(), pl.col(_SUMS).sum())
        .sort("known")
        .with_columns(pl.col("first").cum_min().over(_CUSTOMER), pl.col("last").cum_max().over(_CUSTOMER))
    )


def _ratio(part: str, whole: str) -> pl.Expr:
    return pl.when(pl.col(whole) > 0).then(pl.col(part) / pl.col(whole)).otherwise(0.0)


def _contract(events: pl.DataFrame) -> dict[str, ColumnContract]:
    late = _known_time_contract() if "known_timestamp" in events.columns else {}
    return _event_contract() | late


def _event_contract() -> dict[str, ColumnContract]:
    return {
        _CUSTOMER: ColumnContract(EVENT_SCHEMA[_CUSTOMER], "is not an id", (present(_CUSTOMER),)),
        _EVENT: ColumnContract(EVENT_SCHEMA[_EVENT], NO_TIME_ZONE, (present(_EVENT),)),
        "lines": _number("lines", pl.col("lines") >= 0, "must be 0 or more"),
        "qty": ColumnContract(EVENT_SCHEMA["qty"], "is not a whole number"),
        "amount": _number("amount", pl.col("amount").is_finite(), "must be finite"),
        "return_lines": _number(
            "return_lines",
            pl.col("return_lines").is_between(0, pl.col("lines").clip(0)),
            "must lie between 0 and lines",
        ),
        "return_amount": _number(
            "return_amount",
            pl.col("return_amount").is_finite() & (pl.col("return_amount") >= 0),
            "must be finite and 0 or more",
        ),
        "country": ColumnContract(EVENT_SCHEMA["country"], "is not text"),
    }


def _known_time_contract() -> dict[str, ColumnContract]:
    after = Rule("after_event", "lies before the event_timestamp", pl.col("known_timestamp") >= pl.col(_EVENT))
    rules = (present("known_timestamp"), after)
    return {"known_timestamp": ColumnContract(KNOWN_TIME_SCHEMA["known_timestamp"], NO_TIME_ZONE, rules)}


def _number(name: str, holds: pl.Expr, reason: str) -> ColumnContract:
    return ColumnContract(EVENT_SCHEMA[name], "is not a number", (present(name), Rule("within_range", reason, holds)))
