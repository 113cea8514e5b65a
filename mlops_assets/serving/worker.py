"""What the endpoint's processes import first, and at half its price: Serve in all of them, MLflow in the guard's."""

from __future__ import annotations

from mlops_assets.imports import collect_less_often, without


def import_serve() -> None:
    """Import Ray Serve without pandas, which it needs only to encode frames that a deployment answers with."""
    collect_less_often()
    with without("pandas"):
        import ray.serve  # noqa: F401 - the import is what is wanted


def import_mlflow() -> None:
    """Import MLflow without pandas and polars, which it needs only for tables, and the registry has none."""
    with without("pandas"), without("polars"):
        import mlflow  # noqa: F401 - as above
