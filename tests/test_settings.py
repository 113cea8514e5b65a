"""Everything that differs between a laptop and production, in one place and safe by default."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from pydantic import ValidationError

from mlops_assets.ops import processes
from mlops_assets.settings import Settings, UnknownSetting, require_known_names
from mlops_assets.tokens import hash_of


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


@pytest.mark.parametrize("name", ["home", "models_dir", "feature_repo"])
def test_a_folder_without_a_name_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ".env"
    file.write_text(f"MLOPS_{name.upper()}=\n")
    with pytest.raises(ValidationError, match=f"(?s){name}.*is empty: name a folder, or unset it for the default"):
        Settings(_env_file=file)
    monkeypatch.setenv(f"MLOPS_{name.upper()}", "")
    with pytest.raises(ValidationError, match=f"(?s){name}.*is empty"):
        Settings(_env_file=None)


def test_a_variable_that_no_setting_has_is_refused_with_the_nearest_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (*Settings.model_fields, "platform"):
        monkeypatch.setenv(f"MLOPS_{name.upper()}", "0")
    (tmp_path / ".env").write_text("MLOPS_RATE_LIMIT=1\nOTHERS_TOKEN=2\n")
    require_known_names()
    monkeypatch.setenv("MLOPS_PREDICT_TOKN", "a")
    (tmp_path / ".env").write_text("MLOPS_SERVEPORT=1\nmlops_xyz=2\n")
    with pytest.raises(UnknownSetting) as error:
        require_known_names()
    assert str(error.value).replace(" (all are in mlops_assets/settings.py)", "").splitlines() == [
        "MLOPS_PREDICT_TOKN is no setting: did you mean MLOPS_PREDICT_TOKEN?",
        "MLOPS_SERVEPORT is no setting: did you mean MLOPS_SERVE_PORT?",
        "MLOPS_XYZ is no setting: unset it",
    ]


def test_the_admin_token_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, _env_file=None)
    token = settings.admin_secret()
    assert len(token) >= 32
    assert settings.admin_secret() == Settings(home=tmp_path, _env_file=None).admin_secret() == token
    assert stat.S_IMODE((tmp_path / "admin_token").stat().st_mode) == 0o600


def test_a_token_where_its_hash_belongs_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("admin_token", "predict_token"):
        monkeypatch.setenv(f"MLOPS_{name.upper()}", "open sesame")
        with pytest.raises(ValidationError, match=f"(?s){name}.*`mlops token`") as error:
            Settings(_env_file=None)
        assert "sesame" not in str(error.value)
        monkeypatch.setenv(f"MLOPS_{name.upper()}", hash_of("open sesame"))
        assert getattr(Settings(_env_file=None), name) == hash_of("open sesame")


def test_a_callers_own_token_goes_before_the_homes_and_is_not_shown(tmp_path: Path) -> None:
    own = Settings(home=tmp_path, token="open sesame", _env_file=None)
    assert own.bearer() == "open sesame"
    assert "sesame" not in repr(own)
    assert Settings(home=tmp_path, _env_file=None).bearer() == (tmp_path / "admin_token").read_text()


def test_no_process_of_the_platform_gets_a_callers_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_TOKEN", "open sesame")
    settings = Settings(home=tmp_path, _env_file=None)
    for given in (processes.environment(settings), settings.as_environment()):
        assert "open sesame" not in given.values()


def test_looking_at_a_models_folders_creates_none(tmp_path: Path) -> None:
    home = Settings(home=tmp_path / "var", _env_file=None).model_home("m")
    assert home.incoming == tmp_path / "var" / "models" / "m" / "incoming"
    assert not (tmp_path / "var").exists()
