"""What a customer's purchases say about them at each moment: rolling figures over the last 90 days.

Knows the event frame and how its figures are counted; joining them to messages as known at that time, and serving
them, is left to the feature store.
"""

from __future__ import annotations

import polars as pl

from mlops_assets.data.contract import ColumnContract, Rule, Validated, apply_contract, present, required
from mlops_assets.data.tables import EVENT_SCHEMA, KNOWN_TIME_SCHEMA
from mlops_assets.data.validation import NO_TIME_ZONE

_WINDOW = "90d"
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


def customer_features(events: pl.DataFrame) -> pl.DataFrame:
    """The figures of every customer at each of their event times.

    Parameters:
        events: Good events of `validate_events`, any order, n rows. `known_timestamp`, where present, is when an
            event reached us; otherwise an event is known when it happens.

    Returns:
        One row per customer and event time, sorted by both; events at the same time count together.
        The window is (t - 90 days, t], t the event time:
        `orders_90d` events with at least one purchased line; `spend_90d` purchases before returns, in the
        currency of `amount`; `return_share_90d` returned lines of all lines, 0..1; `mean_basket_90d` spend per
        order, 0 without orders; `tenure_days` days since the first event.
        `created_timestamp` is when the last event that the row depends on was known, never before t.

    >>> from datetime import UTC, datetime
    >>> from mlops_assets.spec import FEATURES
    >>> at = [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 11, tzinfo=UTC)]
    >>> events = pl.DataFrame({"customer_id": ["c", "c"], "event_timestamp": at, "lines": [2, 2], "qty": [2, 0],
    ...     "amount": [10.0, 15.0], "return_lines": [0, 1], "return_amount": [0.0, 5.0], "country": ["NL", "NL"]})
    >>> customer_features(events).select(FEATURES).row(1)
    (2.0, 30.0, 0.25, 15.0, 10.0)
    """
    moments = _moments(events)
    windows = moments.rolling(_EVENT, period=_WINDOW, closed="right", group_by=_CUSTOMER).agg(
        pl.col("orders").sum().cast(pl.Float64).alias("orders_90d"),
        pl.col("purchased").sum().alias("spend_90d"),
        pl.col("lines").sum(),
        pl.col("return_lines").sum(),
        pl.col("known").max(),
    )
    first = moments.group_by(_CUSTOMER).agg(
        pl.col(_EVENT).min().alias("first_event"), pl.col("known").sort_by(_EVENT).first().alias("first_known")
    )
    return (
        windows.join(first, on=_CUSTOMER)
        .select(
            _CUSTOMER,
            _EVENT,
            pl.max_horizontal(_EVENT, "known", "first_known").alias("created_timestamp"),
            "orders_90d",
            "spend_90d",
            _ratio("return_lines", "lines").alias("return_share_90d"),
            _ratio("spend_90d", "orders_90d").alias("mean_basket_90d"),
            ((pl.col(_EVENT) - pl.col("first_event")).dt.total_microseconds() / _DAY_US).alias("tenure_days"),
        )
        .sort(_CUSTOMER, _EVENT)
    )


def _moments(events: pl.DataFrame) -> pl.DataFrame:
    """One row per customer and event time, with what is added up over the window."""
    known = "known_timestamp" if "known_timestamp" in events.columns else _EVENT
    return (
        events.group_by(_CUSTOMER, _EVENT)
        .agg(
            (pl.col("lines") > pl.col("return_lines")).sum().alias("orders"),
            # rounding may leave a pure return a hair below zero
            (pl.col("amount") + pl.col("return_amount")).clip(0).sum().alias("purchased"),
            pl.col("lines").sum(),
            pl.col("return_lines").sum(),
            pl.col(known).max().alias("known"),
        )
        .sort(_CUSTOMER, _EVENT)
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
