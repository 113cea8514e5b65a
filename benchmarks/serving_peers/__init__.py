"""The servers that `benchmarks/serving.py` compares, and what it needs to build, start, load and describe them."""
