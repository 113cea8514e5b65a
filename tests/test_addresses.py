"""Whatever secret an address carries, it is not told with it."""

from __future__ import annotations

import pytest

from mlops_assets.addresses import without_secrets


@pytest.mark.parametrize(
    "address",
    [
        "http://ada:s3cret@mlflow.internal/api",
        "http://s3cret@mlflow.internal/api",
        "https://ada:an@s3cret/x@mlflow.internal/api",
        "postgresql+psycopg://:s3cret@mlflow.internal/api",
        "postgresql://mlflow.internal/api?user=ada&password=s3cret",
    ],
)
def test_neither_user_nor_password_nor_query_is_told(address: str) -> None:
    scheme = address.partition(":")[0]
    told = without_secrets(f"{address} is away; so is {address}")
    assert told == f"{scheme}://mlflow.internal/api is away; so is {scheme}://mlflow.internal/api"


@pytest.mark.parametrize(
    "text",
    ["http://127.0.0.1:5000", "sqlite:////home/ada@work/mlflow.db", "ask ada@work: is it there?", "s3://bucket/x"],
)
def test_all_else_stays_as_it_is(text: str) -> None:
    assert without_secrets(text) == text
