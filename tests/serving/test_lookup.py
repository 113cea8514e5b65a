"""Features come online in time, or the caller is told that defaults stand in, and why."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from mlops_assets.resources.feast import FeatureStoreDoor
from mlops_assets.serving.lookup import FRESH_SECONDS, FeatureLookup, Read, Values, open_feast
from mlops_assets.settings import Settings

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 3, 1, tzinfo=UTC)


async def opened(lookup: FeatureLookup) -> FeatureLookup:
    for _ in range(3000):
        if (await lookup("nobody", NOW)).reason != "feature store: being opened":
            return lookup
        time.sleep(0.01)
    raise AssertionError("never opened")


def known(customer_id: str, as_of: datetime) -> Values | None:
    assert as_of == NOW
    return {"orders_90d": 3.0} if customer_id == "C-1" else None


async def test_a_known_customer_is_online() -> None:
    lookup = await opened(FeatureLookup(lambda: known, deadline=1.0))
    looked = await lookup("C-1", NOW)
    assert (looked.source, looked.values, looked.reason) == ("online", {"orders_90d": 3.0}, None)


async def test_no_customer_and_an_unknown_one_get_defaults_with_the_reason() -> None:
    lookup = await opened(FeatureLookup(lambda: known, deadline=1.0))
    assert (await lookup(None, NOW)).reason == "no customer_id was given"
    assert "unknown" in str((await lookup("C-2", NOW)).reason)
    assert (await lookup("C-2", NOW)).source == "default"


async def test_a_store_that_hangs_costs_the_deadline_and_no_more() -> None:
    hang = threading.Event()

    def read(customer_id: str, _: datetime) -> Values | None:
        if customer_id != "nobody":
            hang.wait(5)
        return None

    lookup = await opened(FeatureLookup(lambda: read, deadline=0.02))
    started = time.perf_counter()
    looked = await lookup("C-1", NOW)
    assert (looked.source, looked.reason) == ("default", "feature store: no answer within 20 ms")
    assert time.perf_counter() - started < 0.5
    hang.set()


async def test_a_store_that_comes_up_late_is_used_from_then_on() -> None:
    up = threading.Event()

    def open_store() -> object:
        if not up.is_set():
            raise ConnectionError("nobody listens")
        return known

    lookup = await opened(FeatureLookup(open_store, deadline=1.0, reopen_after=0.01))  # type: ignore[arg-type]
    assert "ConnectionError" in str((await lookup("C-1", NOW)).reason)
    assert lookup.error == "ConnectionError"
    up.set()
    for _ in range(100):
        if (await lookup("C-1", NOW)).source == "online":
            return
        time.sleep(0.01)
    raise AssertionError("never came back")


async def test_an_error_of_the_store_reaches_the_log_once_and_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    def read(customer_id: str, _: datetime) -> Values | None:
        if customer_id == "nobody":
            return None
        raise RuntimeError("secret connection string")

    lookup = await opened(FeatureLookup(lambda: read, deadline=1.0))
    looked = [await lookup("C-1", NOW) for _ in range(3)]
    assert {one.reason for one in looked} == {"feature store: RuntimeError"}
    assert lookup.error == "RuntimeError"
    assert caplog.text.count("secret connection string") == 1


class Copied:
    """A store with a version that it can hand over whole; counts how often it was asked for one customer."""

    def __init__(self, held: dict[str, Values]) -> None:
        self.held = held
        self.asked = 0
        self.down = False

    def __call__(self, customer_id: str, _: datetime) -> Values | None:
        self.asked += customer_id != "nobody"
        if self.down:
            raise ConnectionError
        return self.held.get(customer_id)

    def copy(self) -> Read:
        if self.down:
            raise ConnectionError
        held = dict(self.held)
        return lambda customer_id, _: held.get(customer_id)


async def copied(lookup: FeatureLookup) -> FeatureLookup:
    """Look up until the copy is there."""
    await opened(lookup)
    for _ in range(3000):
        await lookup("nobody", NOW)
        if lookup.copy_age is not None and lookup.copy_age < 0.1:
            return lookup
        await asyncio.sleep(0.005)
    raise AssertionError("never copied")


async def test_a_store_that_can_be_copied_is_not_asked_for_each_customer() -> None:
    store = Copied({"C-1": {"orders_90d": 3.0}})
    lookup = await copied(FeatureLookup(lambda: store, deadline=1.0))
    for _ in range(20):
        looked = await lookup("C-1", NOW)
        assert (looked.source, looked.values, looked.outcome) == ("online", {"orders_90d": 3.0}, "hit")
    assert (await lookup("C-2", NOW)).reason == "the customer is unknown to the feature store"
    assert store.asked == 0


async def test_what_the_store_learns_is_served_within_a_quarter_of_a_second() -> None:
    store = Copied({"C-1": {"orders_90d": 3.0}})
    lookup = await copied(FeatureLookup(lambda: store, deadline=1.0))
    store.held = {"C-1": {"orders_90d": 4.0}}
    changed = time.monotonic()
    while (await lookup("C-1", NOW)).values != {"orders_90d": 4.0}:
        assert time.monotonic() - changed < 5  # of a busy machine
        await asyncio.sleep(0.005)
    await copied(lookup)
    time.sleep(FRESH_SECONDS)  # nobody asks, so nobody looks: then the copy is too old, and the store itself is asked
    store.held = {"C-1": {"orders_90d": 5.0}}
    assert (await lookup("C-1", NOW)).values == {"orders_90d": 5.0}
    assert store.asked == 1


async def test_a_copy_does_not_hide_that_its_store_is_down() -> None:
    store = Copied({"C-1": {"orders_90d": 3.0}})
    lookup = await copied(FeatureLookup(lambda: store, deadline=1.0))
    store.down = True
    time.sleep(FRESH_SECONDS)
    looked = await lookup("C-1", NOW)
    assert (looked.source, looked.reason) == ("default", "feature store: ConnectionError")
    assert lookup.error is not None
    store.down = False
    await copied(lookup)
    assert (await lookup("C-1", NOW)).source == "online"
    assert lookup.error is None


@pytest.mark.slow
async def test_the_real_store_answers_through_the_same_door(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, home=tmp_path)
    door = FeatureStoreDoor(settings)
    door.apply()
    values = dict.fromkeys(door.feature_names, 2.0)
    rows = pl.DataFrame([{"customer_id": "C-1", "event_timestamp": NOW, "created_timestamp": NOW, **values}])
    door.push(rows)
    lookup = FeatureLookup(lambda: open_feast(settings), deadline=5.0)
    await opened(lookup)
    looked = await lookup("C-1", NOW)
    assert (looked.source, looked.values) == ("online", values)
    assert (await lookup("C-2", NOW)).source == "default"

    later = await lookup("C-1", NOW + timedelta(days=3650))
    assert (later.source, later.outcome) == ("default", "stale")
    assert "too old" in str(later.reason)
    assert (await lookup("C-2", NOW)).outcome == "default"
