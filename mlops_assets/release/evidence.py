"""A gate's inputs as they are kept: a document and a table with a row per test row; and back.

What was recorded is enough to judge again (`replay`); whether it is true of the stored rows and models is checked by
whoever can fetch them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl

from mlops_assets.leaks import Leakage
from mlops_assets.release.gate_inputs import Champion, ChampionUnavailable, FirstModel, GateInputs, Waiver

ROW_ID = "message_id"
_CHAMPIONS = {kind.__name__: kind for kind in (FirstModel, ChampionUnavailable, Champion)}


def table_of(inputs: GateInputs, row_ids: Sequence[str]) -> pl.DataFrame:
    """The inputs that are arrays over the test rows: labels and answers by name, probabilities as ``p_<label>``.

    Customers stand there by number: what is kept of a decision names nobody.

    Parameters
    ----------
    row_ids : what the test rows are called, in the order of the arrays.
    """
    names = np.array(inputs.labels)
    columns: dict[str, Any] = {
        ROW_ID: list(row_ids),
        "label": names[inputs.truth].tolist(),
        "answer": names[inputs.predicted].tolist(),
    }
    if isinstance(inputs.champion, Champion):
        columns["champion"] = names[inputs.champion.predicted].tolist()
    if inputs.newest is not None:
        columns["newest"] = inputs.newest
    if inputs.customers is not None:
        columns["customer"] = inputs.customers
    if inputs.probabilities is not None:
        columns |= {f"p_{label}": inputs.probabilities[:, number] for number, label in enumerate(inputs.labels)}
    return pl.DataFrame(columns)


def document_of(inputs: GateInputs) -> dict[str, Any]:
    """All other inputs, as plain JSON types."""
    champion = asdict(inputs.champion) if inputs.champion is not None else None
    if champion is not None:
        champion.pop("predicted", None)
        champion["kind"] = type(inputs.champion).__name__
    return {
        "labels": list(inputs.labels),
        "champion": champion,
        "latencies_ms": None if inputs.latencies_ms is None else inputs.latencies_ms.tolist(),
        "leakage": None if inputs.leakage is None else inputs.leakage.to_dict(),
        "earlier_uses": inputs.earlier_uses,
        "seed": inputs.seed,
        "waiver": asdict(inputs.waiver) if inputs.waiver else None,
    }


def inputs_from(document: Mapping[str, Any], table: pl.DataFrame) -> GateInputs:
    """The inverse of `document_of` and `table_of`.

    Raises
    ------
    KeyError, ValueError : the document or the table lacks a part; it was written by other code, or changed.

    Examples
    --------
    >>> inputs = GateInputs(labels=("a", "b"), truth=np.array([0, 1]), predicted=np.array([0, 0]))
    >>> inputs_from(document_of(inputs), table_of(inputs, ["m1", "m2"])).predicted
    array([0, 0])
    """
    labels = tuple(document["labels"])
    probabilities = [f"p_{label}" for label in labels]
    latencies, leakage, waiver = document["latencies_ms"], document["leakage"], document["waiver"]
    return GateInputs(
        labels=labels,
        truth=numbers_of(table["label"], labels),
        predicted=numbers_of(table["answer"], labels),
        champion=_champion(document["champion"], table, labels),
        newest=table["newest"].to_numpy() if "newest" in table.columns else None,
        customers=table["customer"].to_numpy() if "customer" in table.columns else None,
        probabilities=table.select(probabilities).to_numpy() if probabilities[0] in table.columns else None,
        latencies_ms=None if latencies is None else np.array(latencies),
        leakage=None if leakage is None else Leakage.from_dict(leakage),
        earlier_uses=document["earlier_uses"],
        seed=document["seed"],
        waiver=None if waiver is None else Waiver(**waiver),
    )


def numbers_of(names: pl.Series, labels: Sequence[str]) -> np.ndarray:
    """Label numbers (n,) of label names.

    Raises
    ------
    ValueError : a name is no label.
    """
    position = {label: number for number, label in enumerate(labels)}
    unknown = set(names) - set(position)
    if unknown:
        raise ValueError(f"{', '.join(sorted(map(str, unknown)))} is none of the labels {', '.join(labels)}")
    return np.array([position[name] for name in names], dtype=np.int64)


def _champion(
    document: Mapping[str, Any] | None, table: pl.DataFrame, labels: tuple[str, ...]
) -> Champion | ChampionUnavailable | FirstModel | None:
    if document is None:
        return None
    fields = {name: value for name, value in document.items() if name != "kind"}
    if document["kind"] == Champion.__name__:
        fields["predicted"] = numbers_of(table["champion"], labels)
    return _CHAMPIONS[document["kind"]](**fields)
