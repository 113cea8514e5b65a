"""What `python -m mlops_assets.serving` refuses to start with."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlops_assets.serving.__main__ import main


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("MLOPS_PREDICT_TOKN", "a", "MLOPS_PREDICT_TOKN is no setting"),
        ("MLOPS_HOME", "", "is empty: name a folder"),
        ("MLOPS_MODELS_DIR", "nowhere", "no model is declared"),
    ],
)
def test_a_fault_of_the_settings_is_told_without_a_traceback(
    variable: str,
    value: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLOPS_MODELS_DIR", "nowhere")  # whatever is checked, nothing is served
    monkeypatch.setenv(variable, value)
    assert main() == 2
    assert said in capsys.readouterr().err
