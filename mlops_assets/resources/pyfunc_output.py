"""What a pyfunc model answered, as probabilities over the declared labels.

MLflow leaves the form of an answer to the model, so the forms that are understood are told here, and any
other is refused in words. It guesses nothing: numbers without the names of their columns are no answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

ACCEPTED = (
    "accepted are: a DataFrame of probabilities with a column per label; an array of them whose columns are named by "
    "the model's `classes_` or by metadata={'labels': [...]} at log_model; or one label per message"
)
_SUM_TOLERANCE = 1e-3
_QUOTED, _LETTERS = 5, 40  # strangers that a message names, and how much of each


class UnusableOutput(ValueError):
    """A model answered in a form that cannot be served; the message says what came and what is accepted."""


def read_output(output: Any, rows: int, labels: Sequence[str], columns: Sequence[str] | None) -> Floats:
    """Probabilities (rows, labels), in the order of `labels`; 0 for a label that the model does not know.

    A model that answers with a label alone is taken to be sure of it: 1 for that label, 0 for the others.

    Args:
        output: what the model returned for `rows` messages.
        columns: labels of an array's columns, where the model says them.

    Raises:
        UnusableOutput: it is none of what is accepted, or names a label that is not declared.

    >>> read_output(["b", "a"], 2, ["a", "b"], None).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    >>> read_output(np.array([[0.9, 0.1]]), 1, ["a", "b"], columns=["b", "a"]).round(1).tolist()
    [[0.10000000149011612, 0.8999999761581421]]
    """
    table, names = _table(output, columns)
    if len(table) != rows:
        raise UnusableOutput(f"{len(table)} answers came for {rows} messages; {ACCEPTED}")
    if table.shape[1] == 1 and all(isinstance(value, str) for value in table[:, 0]):
        return _sure(table[:, 0].tolist(), labels)
    return _probabilities(table, names, labels)


def _table(output: Any, columns: Sequence[str] | None) -> tuple[NDArray[Any], Sequence[str] | None]:
    """The answer as a table (rows, columns), and what its columns are called."""
    import pandas as pd

    if isinstance(output, pd.DataFrame):
        return output.to_numpy(), [str(name) for name in output.columns]
    if not isinstance(output, pd.Series | np.ndarray | list | tuple):
        raise UnusableOutput(f"{type(output).__name__} came; {ACCEPTED}")
    try:
        table = np.asarray(output)
    except ValueError as error:  # rows of different lengths
        raise UnusableOutput(f"{type(output).__name__} that is no table came ({error}); {ACCEPTED}") from error
    if table.ndim not in (1, 2):
        raise UnusableOutput(f"an array of {table.ndim} dimensions came; {ACCEPTED}")
    return table.reshape(len(table), -1), columns


def _sure(said: Sequence[str], labels: Sequence[str]) -> Floats:
    _require_declared(said, labels)
    found = np.zeros((len(said), len(labels)), np.float32)
    found[np.arange(len(said)), [labels.index(label) for label in said]] = 1.0
    return found


def _probabilities(table: NDArray[Any], names: Sequence[str] | None, labels: Sequence[str]) -> Floats:
    if names is None:
        raise UnusableOutput(
            f"an array of {table.dtype} without names for its {table.shape[1]} columns came; {ACCEPTED}"
        )
    if len(set(names)) != table.shape[1]:
        raise UnusableOutput(f"{table.shape[1]} columns came for the names {', '.join(names)}; {ACCEPTED}")
    _require_declared(names, labels)
    try:
        values = table.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise UnusableOutput(f"columns that are no numbers came ({error}); {ACCEPTED}") from error
    total = values.sum(axis=1)
    if not (np.all(values >= -_SUM_TOLERANCE) and np.all(np.abs(total - 1) <= _SUM_TOLERANCE)):
        raise UnusableOutput(
            f"rows from {values.min():.4g} to {values.max():.4g} that sum to {total.min():.4g} to {total.max():.4g} "
            "came, and probabilities are not below 0 and sum to 1"
        )
    found = np.zeros((len(table), len(labels)), np.float32)
    found[:, [labels.index(name) for name in names]] = values
    return found


def _require_declared(said: Sequence[str], labels: Sequence[str]) -> None:
    strangers = sorted(set(said) - set(labels))
    if strangers:
        shown = ", ".join(repr(stranger[:_LETTERS]) for stranger in strangers[:_QUOTED])
        raise UnusableOutput(f"{shown} is no declared label (these are: {', '.join(labels)}); {ACCEPTED}")
