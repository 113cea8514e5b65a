"""Everything that differs between a laptop and production, in one place and safe by default."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from pydantic import ValidationError

from mlops_assets.settings import Settings


def test_the_defaults_are_local(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"MLOPS_{name.upper()}", raising=False)
    settings = Settings(_env_file=None)
    assert settings.host == "127.0.0.1"
    assert settings.tracking_uri.startswith("sqlite:///")
    assert not settings.replay_clock
    assert settings.notify_urls == []


def test_each_is_read_from_the_environment_and_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ".env"
    file.write_text('MLOPS_SERVE_PORT=8100\nMLOPS_MLFLOW_PORT=5100\nMLOPS_NOTIFY_URLS=["json://localhost"]\n')
    monkeypatch.setenv("MLOPS_SERVE_PORT", "8200")
    settings = Settings(_env_file=file)
    assert (settings.serve_port, settings.mlflow_port) == (8200, 5100)  # the environment wins
    assert settings.endpoint == "http://127.0.0.1:8200"
    assert settings.notify_urls == ["json://localhost"]


def test_a_value_that_cannot_be_is_refused_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_SERVE_PORT", "70000")
    with pytest.raises(ValidationError, match="serve_port"):
        Settings(_env_file=None)


def test_the_admin_token_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, _env_file=None)
    token = settings.admin_secret()
    assert len(token) >= 32
    assert settings.admin_secret() == Settings(home=tmp_path, _env_file=None).admin_secret() == token
    assert stat.S_IMODE((tmp_path / "admin_token").stat().st_mode) == 0o600


def test_an_admin_token_that_was_set_is_used_and_never_shown(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, admin_token="open sesame", _env_file=None)
    assert settings.admin_secret() == "open sesame"
    assert "sesame" not in repr(settings)
    assert not (tmp_path / "admin_token").exists()


def test_looking_at_a_models_folders_creates_none(tmp_path: Path) -> None:
    home = Settings(home=tmp_path / "var", _env_file=None).model_home("m")
    assert home.incoming == tmp_path / "var" / "models" / "m" / "incoming"
    assert not (tmp_path / "var").exists()
