"""What a pyfunc model may answer, and what is refused in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_assets.resources.pyfunc_output import UnusableOutput, read_output

LABELS = ("query", "refund", "other")
BACK_TO_FRONT = [[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]]


def read(output: Any, columns: list[str] | None = None) -> list[list[float]]:
    return read_output(output, 2, LABELS, columns).astype(float).round(6).tolist()


@pytest.mark.parametrize("kind", [list, tuple, np.array, pd.Series, lambda said: pd.DataFrame({"answer": said})])
def test_a_label_alone_is_taken_as_certain(kind: Any) -> None:
    assert read(kind(["refund", "query"])) == [[0, 1, 0], [1, 0, 0]]


def test_columns_of_a_frame_are_known_by_their_names_and_not_by_their_order() -> None:
    frame = pd.DataFrame(BACK_TO_FRONT, columns=["other", "refund", "query"])
    assert read(frame) == [[0.7, 0.2, 0.1], [0.2, 0.3, 0.5]]


def test_columns_of_an_array_are_those_that_the_model_names() -> None:
    assert read(np.array(BACK_TO_FRONT), ["other", "refund", "query"]) == [[0.7, 0.2, 0.1], [0.2, 0.3, 0.5]]


def test_a_label_that_the_model_does_not_know_is_impossible() -> None:
    assert read(pd.DataFrame({"refund": [0.4, 1.0], "query": [0.6, 0.0]})) == [[0.6, 0.4, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    ("output", "columns", "says"),
    [
        (None, None, "NoneType came"),
        ({"query": 1.0}, None, "dict came"),
        ("refund", None, "str came"),
        (np.array(BACK_TO_FRONT), None, "float64 without names for its 3 columns"),
        (np.array([1, 0]), None, "int64 without names for its 1 columns"),
        (np.array(BACK_TO_FRONT), ["query", "refund"], "3 columns came for the names query, refund"),
        (np.zeros((2, 3, 1)), None, "3 dimensions"),
        (np.array(1.0), None, "0 dimensions"),
        ([["query"], ["query", "refund"]], None, "no table came"),
        (["refund"], None, "1 answers came for 2 messages"),
        (["refund", "praise"], None, "'praise' is no declared label"),
        (["refund", None], None, "without names"),
        (pd.DataFrame(BACK_TO_FRONT, columns=["p_query", "refund", "other"]), None, "'p_query' is no declared label"),
        (pd.DataFrame({"query": ["a", "b"], "other": ["c", "d"]}), None, "no numbers"),
    ],
)
def test_any_other_answer_is_refused_with_what_came_and_what_is_accepted(
    output: Any, columns: list[str] | None, says: str
) -> None:
    with pytest.raises(UnusableOutput, match=r"accepted are: a DataFrame .* or one label per message") as refused:
        read(output, columns)
    assert says in str(refused.value)


@pytest.mark.parametrize("row", [[2.0, -1.0, 0.0], [0.2, 0.2, 0.2], [np.nan, 0.5, 0.5], [4.1, -2.0, 0.3]])
def test_numbers_that_are_no_probabilities_are_refused(row: list[float]) -> None:
    with pytest.raises(UnusableOutput, match="probabilities are not below 0 and sum to 1"):
        read(pd.DataFrame([row, row], columns=LABELS))
