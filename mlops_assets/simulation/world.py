"""The embedded world as data: generate it from a seed, and write it in the format of `mlops demo --data DIR`.

This is what `make demo` and the end-to-end tests run on where nobody brings data of their own. It knows nothing of
the platform; the story that is told with these rows is left to the demo.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl

from mlops_assets.simulation.customers import make_customers, purchases
from mlops_assets.simulation.defects import spoil
from mlops_assets.simulation.messages import messages_of, midnight
from mlops_assets.simulation.scenario import CUSTOMERS, NOISE, PURCHASE_DAYS, periods
from mlops_assets.storage import write_atomic

SEED = 20260301
LEAST_CUSTOMERS = 50


@dataclass(frozen=True)
class World:
    """Everything that happened.

    Attributes
    ----------
    history
        30 days of labelled messages from 2026-03-01, about 4,800, with 0.5 % deliberately bad rows among them.
    ordinary, shifted
        Ten days each, directly after: the same shop, then another one. No bad rows.
    customer_events
        Purchases of the year that ends with the last shifted day.
    defects
        message_id and defect of each bad row of the history (a duplicate's id is also that of a good row).
    """

    history: pl.DataFrame
    ordinary: pl.DataFrame
    shifted: pl.DataFrame
    customer_events: pl.DataFrame
    defects: pl.DataFrame


def generate(seed: int = SEED, scale: float = 1.0) -> World:
    """Draw a world.

    Parameters
    ----------
    seed
        The same seed and scale give the same world.
    scale
        Factor on messages per day and on the number of customers, over 0; the days stay as they are.

    Raises
    ------
    ValueError
        If `scale` is not positive.

    Examples
    --------
    >>> world = generate(seed=7, scale=0.05)
    >>> world.history["event_timestamp"].min().date().isoformat()
    '2026-03-01'
    >>> world.shifted["event_timestamp"].max().date().isoformat()
    '2026-04-19'
    """
    if scale <= 0:
        raise ValueError(f"scale is {scale}; it must be over 0 (1.0: about 8,000 messages)")
    script = periods()
    start = midnight(script[-1].end - timedelta(days=PURCHASE_DAYS))
    # A stream of its own for each part, so that a change to one leaves the others as they were.
    people, buying, bad, *talk = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3 + len(script)))
    customers = make_customers(max(round(CUSTOMERS * scale), LEAST_CUSTOMERS), PURCHASE_DAYS, people)
    history, ordinary, shifted = (
        messages_of(period, NOISE, scale, customers, start, rng) for period, rng in zip(script, talk, strict=True)
    )
    history, defects = spoil(history, NOISE, bad)
    return World(history, ordinary, shifted, purchases(customers, start, buying), defects)


def write_world(folder: Path, world: World) -> None:
    """Write the four files that `mlops demo --data DIR` reads; each is replaced atomically.

    `messages.parquet` (the history with its bad rows), `traffic_in_domain.parquet`, `traffic_shifted.parquet` and
    `customer_events.parquet`; timestamps in nanoseconds, UTC.
    """
    files = {
        "messages": world.history,
        "traffic_in_domain": world.ordinary,
        "traffic_shifted": world.shifted,
        "customer_events": world.customer_events,
    }
    for name, frame in files.items():
        content = BytesIO()
        frame.with_columns(pl.selectors.datetime().dt.cast_time_unit("ns")).write_parquet(content)
        write_atomic(folder / f"{name}.parquet", content.getvalue())
