"""Data as it comes in: read, validate, snapshot, split, search for leakage, derive customer features."""
