"""Durable small files: whole or not at all, and the same content always the same bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.storage import digest_file, digest_json, read_json, to_json, write_atomic, write_json
from mlops_assets.verdict import Verdict

DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@dataclass(frozen=True)
class Point:
    x: int


def test_a_file_is_replaced_as_a_whole_and_its_folder_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    write_atomic(path, b"old")
    assert write_atomic(path, b"new").read_bytes() == b"new"
    assert [file.name for file in path.parent.iterdir()] == ["b.txt"]


def test_a_write_that_fails_leaves_the_old_content_and_no_draft(tmp_path: Path) -> None:
    path = write_atomic(tmp_path / "a.txt", b"old")
    with pytest.raises(TypeError):
        write_atomic(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.slow
@given(DOCUMENTS)
def test_json_comes_back_and_its_digest_is_that_of_what_came_back(document: object) -> None:
    import json

    again = json.loads(to_json(document))
    assert again == document
    assert digest_json(again) == digest_json(document)


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1}) != digest_json({"a": 1, "b": 3})


def test_what_the_platform_writes_has_a_form_in_json(tmp_path: Path) -> None:
    document = {
        "time": datetime(2026, 3, 1, tzinfo=UTC),
        "day": date(2026, 3, 1),
        "verdict": Verdict.PASS,
        "path": Path("a/b"),
        "point": Point(3),
        "names": {"b", "a"},
        "scalar": np.float32(0.5),
        "array": np.arange(2),
    }
    assert read_json(write_json(tmp_path / "a.json", document)) == {
        "time": "2026-03-01T00:00:00+00:00",
        "day": "2026-03-01",
        "verdict": "pass",
        "path": "a/b",
        "point": {"x": 3},
        "names": ["a", "b"],
        "scalar": 0.5,
        "array": [0, 1],
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float64("nan"), object()])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        to_json({"value": value})


def test_a_broken_json_file_is_named(tmp_path: Path) -> None:
    path = write_atomic(tmp_path / "a.json", b'{"cut')
    with pytest.raises(ValueError, match=r"a\.json is not valid JSON"):
        read_json(path)


def test_a_files_digest_is_the_sha256_of_its_bytes(tmp_path: Path) -> None:
    assert digest_file(write_atomic(tmp_path / "a", b"abc")) == hashlib.sha256(b"abc").hexdigest()
