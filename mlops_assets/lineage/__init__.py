"""The Dagster layer: one file per stage of the graph. Wiring only; what a stage does lives in the pure packages."""
