"""`mlops` as it is called: what each command says when all is well, and when it is not."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from click import unstyle
from click.testing import Result
from typer.testing import CliRunner

from mlops_assets.cli import app
from mlops_assets.ops.setup import DAGSTER_YAML
from mlops_assets.ports import free_port
from mlops_assets.settings import Settings
from mlops_assets.storage import digest_file, write_atomic, write_json
from mlops_assets.tokens import matches
from mlops_assets.training.artefact import MANIFEST, NETWORK, TOKENIZER, Manifest
from tests.data.factories import messages

COMMANDS = (
    *("up", "down", "status", "predict", "explain", "ingest", "submit", "register", "approve", "forget", "token"),
    *("check-drift", "data-quality", "canary", "verify", "replay", "demo"),
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which nothing runs, on ports where nobody listens."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "var"))
    monkeypatch.setenv("COLUMNS", "400")
    for name in ("SERVE", "MLFLOW", "DAGSTER", "CODE"):
        monkeypatch.setenv(f"MLOPS_{name}_PORT", str(free_port()))
    return tmp_path / "var"


def mlops(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(app, arguments, input=answer)


def one_line(said: Result) -> str:
    """The error of a command that failed: one line, no traceback."""
    assert said.exception is None or isinstance(said.exception, SystemExit)
    (line,) = said.stderr.splitlines()
    return line


def test_help_lists_every_command() -> None:
    said = mlops("--help")
    assert said.exit_code == 0
    assert set(re.findall(r"^│ ([a-z]\S*)", unstyle(said.stdout), re.MULTILINE)) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    said = mlops(command, "--help")
    assert said.exit_code == 0
    assert "Usage" in said.stdout


def test_a_token_is_made_with_the_hash_that_the_endpoint_knows_it_by() -> None:
    made = [json.loads(mlops("token", "--json").stdout) for _ in range(2)]
    assert made[0]["token"] != made[1]["token"]
    assert all(matches(one["token"], [one["hash"]]) for one in made)
    assert "MLOPS_ADMIN_TOKEN" in mlops("token").stdout


@pytest.mark.usefixtures("home")
def test_predict_without_an_endpoint_says_so_in_one_line() -> None:
    said = mlops("predict", "where is my parcel?")
    assert said.exit_code == 1
    assert one_line(said).startswith("error: POST http://127.0.0.1:")
    assert one_line(said).endswith("is it up? `mlops status`")


@pytest.mark.usefixtures("home")
def test_registering_where_no_platform_was_ever_up_says_what_to_do() -> None:
    said = mlops("register", "models:/intent_classifier/1")
    assert said.exit_code == 1
    assert one_line(said).endswith("nothing was registered yet; run `mlops up` or `mlops demo`")


@pytest.mark.usefixtures("home")
def test_half_a_waiver_is_refused() -> None:
    said = mlops("register", "models:/intent_classifier/1", "--waive", "in a hurry")
    assert said.exit_code == 2
    assert one_line(said) == "error: a waiver needs both its reason (--waive) and who takes it (--by)"


@pytest.mark.usefixtures("home")
def test_status_without_a_platform_names_every_part_that_is_down() -> None:
    said = mlops("status")
    assert said.exit_code == 1
    for part in ("serving", "mlflow", "dagster-webserver", "dagster-daemon"):
        assert any(part in line and "down" in line and "mlops up" in line for line in said.stdout.splitlines())


def test_status_says_the_same_to_a_machine(home: Path) -> None:
    said = mlops("status", "--json")
    assert said.exit_code == 1
    found = json.loads(said.stdout)
    assert found["healthy"] is False
    assert found["home"] == str(home)
    assert {part["ok"] for part in found["parts"]} == {False}


@pytest.mark.usefixtures("home")
def test_a_file_is_put_into_the_inbox_under_its_own_name(tmp_path: Path) -> None:
    file = tmp_path / "march.csv"
    messages(3).write_csv(file)
    said = mlops("ingest", "--messages", str(file))
    assert said.exit_code == 0
    inbox = Settings(_env_file=None).model_home("intent_classifier").incoming / "messages"
    assert [path.name for path in inbox.iterdir()] == ["march.csv"]
    assert (inbox / "march.csv").read_bytes() == file.read_bytes()


def test_a_file_that_is_not_there_is_not_ingested(home: Path) -> None:
    said = mlops("ingest", "--messages", "no/such.csv")
    assert (said.exit_code, one_line(said)) == (2, "error: no/such.csv is not a file")
    assert not home.exists()


def test_a_file_that_no_sensor_would_ever_look_at_is_refused(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "march.xlsx"
    file.write_bytes(b"PK")
    said = mlops("ingest", "--messages", str(file))
    assert said.exit_code == 2
    assert ".csv, .jsonl, .ndjson, .parquet" in one_line(said)
    assert not home.exists()


def test_a_model_that_nobody_declared_is_refused(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "march.csv"
    messages(3).write_csv(file)
    said = mlops("ingest", "--messages", str(file), "--model", "typo")
    assert said.exit_code == 2
    assert one_line(said) == "error: no model typo is declared; there is: intent_classifier"
    assert not home.exists()


@pytest.mark.usefixtures("home")
def test_nothing_to_ingest_is_said() -> None:
    said = mlops("ingest")
    assert said.exit_code == 2
    assert "--messages" in one_line(said)


def test_an_unknown_prediction_is_not_explained(home: Path) -> None:
    said = mlops("explain", "p-none")
    assert said.exit_code == 1
    assert one_line(said) == f"error: no log under {home} holds the prediction p-none"


@pytest.mark.usefixtures("home")
def test_a_folder_that_is_no_model_is_not_submitted(tmp_path: Path) -> None:
    said = mlops("submit", str(tmp_path))
    assert said.exit_code == 1
    assert "manifest.json" in one_line(said)
    nowhere = mlops("submit", str(tmp_path / "none"))
    assert one_line(nowhere) == f"error: {tmp_path / 'none'} is not a folder; give the one that holds manifest.json"


@pytest.mark.usefixtures("home")
def test_a_model_with_labels_of_its_own_is_not_submitted(tmp_path: Path) -> None:
    digests = {name: digest_file(write_atomic(tmp_path / name, b"")) for name in (NETWORK, TOKENIZER)}
    theirs = Manifest(labels=("greeting", "smalltalk"), feature_defaults={}, max_tokens=16, digests=digests)
    write_json(tmp_path / MANIFEST, theirs.to_document())
    said = mlops("submit", str(tmp_path))
    assert said.exit_code == 1
    assert "the model has smalltalk, which data.labels does not declare" in one_line(said)
    assert one_line(mlops("submit", str(tmp_path), "--model", "typo")).startswith("error: no model typo is declared")


@pytest.mark.usefixtures("home")
def test_a_waiver_needs_its_reason_and_its_author(tmp_path: Path) -> None:
    said = mlops("submit", str(tmp_path), "--waive", "a drill")
    assert said.exit_code == 2
    assert "--by" in one_line(said)


def test_a_setting_that_cannot_be_used_is_named_in_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_SERVE_PORT", "70000")
    said = mlops("status")
    assert (said.exit_code, home.exists()) == (2, False)
    assert one_line(said) == "error: MLOPS_SERVE_PORT: Input should be less than or equal to 65535"


@pytest.mark.parametrize("command", ["up", "demo"])
def test_nothing_starts_with_a_misspelt_setting(home: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_PREDICT_TOKN", "sha256:0")
    monkeypatch.setenv("MLOPS_MODELS_DIR", "nowhere")  # whatever is checked, no platform is started
    said = mlops(command)
    assert (said.exit_code, home.exists()) == (2, False)
    assert one_line(said).startswith("error: MLOPS_PREDICT_TOKN is no setting")


def test_down_stops_and_keeps_the_state(home: Path) -> None:
    (home / "models").mkdir(parents=True)
    said = mlops("down")
    assert (said.exit_code, said.stdout) == (0, "stopped 0 processes\n")
    assert (home / "models").exists()


@pytest.fixture
def prepared(home: Path) -> Path:
    """A home whose set-up began."""
    write_atomic(home / "dagster" / "dagster.yaml", DAGSTER_YAML.encode())
    return home


def test_down_wipe_asks_and_keeps_everything_unless_told_yes(prepared: Path) -> None:
    said = mlops("down", "--wipe", answer="n\n")
    assert f"Remove {prepared} with every snapshot, model, prediction and label in it?" in said.stdout
    assert said.exit_code == 1
    assert (prepared / "dagster").exists()

    assert mlops("down", "--wipe", answer="y\n").exit_code == 0
    assert not prepared.exists()


def test_down_wipe_with_yes_does_not_ask(prepared: Path) -> None:
    said = mlops("down", "--wipe", "--yes")
    assert said.exit_code == 0
    assert "?" not in said.stdout
    assert not prepared.exists()


def test_down_wipe_removes_the_home_that_it_is_called_in(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(prepared)
    monkeypatch.setenv("MLOPS_HOME", ".")
    assert mlops("down", "--wipe", "--yes").exit_code == 0
    assert not prepared.exists()


@pytest.mark.parametrize("theirs", ["thesis.txt", "admin_token", "dagster/dagster.yaml"])
def test_down_wipe_removes_no_folder_that_is_not_a_home(home: Path, theirs: str) -> None:
    write_atomic(home / theirs, b"storage: {}")
    said = mlops("down", "--wipe", "--yes")
    assert (said.exit_code, one_line(said)) == (2, f"error: {home} is no home of this platform: nothing removed")
    assert (home / theirs).exists()


def test_an_empty_home_is_not_the_current_folder(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(prepared)
    monkeypatch.setenv("MLOPS_HOME", "")
    said = mlops("down", "--wipe", "--yes")
    assert said.exit_code == 2
    assert one_line(said) == "error: MLOPS_HOME: is empty: name a folder, or unset it for the default"
    assert prepared.exists()


@pytest.mark.usefixtures("home")
def test_a_demo_on_a_folder_that_lacks_files_says_which(tmp_path: Path) -> None:
    said = mlops("demo", "--data", str(tmp_path))
    assert said.exit_code == 1
    assert "lacks messages, " in said.stdout
    assert "docs/data.md" in said.stdout


@pytest.mark.parametrize("what", ["models", "thesis"])
def test_a_demo_does_not_touch_what_no_demo_made(home: Path, what: str) -> None:
    (home / what).mkdir(parents=True)
    said = mlops("demo")
    assert said.exit_code == 1
    assert f"holds {what}, which no demo made" in said.stdout
    assert "MLOPS_HOME" in said.stdout
    assert (home / what).exists()


def test_a_demo_that_cannot_begin_leaves_the_one_before(home: Path, tmp_path: Path) -> None:
    (home / "demo").mkdir(parents=True)
    (home / "demo" / "started").touch()
    for data, why in ((tmp_path / "typo", "lacks messages, "), (home / "demo", "lacks messages, ")):
        assert why in mlops("demo", "--data", str(data)).stdout
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", Settings().dagster_port))
        taken.listen()
        assert "is in use" in mlops("demo").stdout
    assert (home / "demo" / "started").exists()


@pytest.mark.parametrize("command", ["up", "demo"])
def test_a_second_platform_in_one_home_leaves_the_first_alone(home: Path, command: str) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as first:
        record = {"pid": first.pid, "birth": psutil.Process(first.pid).create_time()}
        write_json(home / "run" / "platform.json", record)
        (home / "demo").mkdir()
        (home / "demo" / "started").touch()
        said = mlops(command)
        assert said.exit_code == 1
        assert f"is running (process {first.pid})" in said.output
        assert first.poll() is None


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    "arguments", [("status",), ("abort", "2", "--reason", "a drill"), ("promote", "2")], ids=lambda a: a[0]
)
def test_canary_commands_without_an_endpoint_say_so_in_one_line(arguments: tuple[str, ...]) -> None:
    said = mlops("canary", *arguments)
    assert said.exit_code == 1
    assert one_line(said).endswith("is it up? `mlops status`")


@pytest.mark.usefixtures("home")
def test_a_watch_that_sees_nothing_does_not_end_like_one_that_saw_the_canary_stopped() -> None:
    said = mlops("canary", "watch")
    assert said.exit_code == 2
    assert one_line(said).endswith("is it up? `mlops status`")


def test_a_canary_is_not_stopped_without_a_reason(home: Path) -> None:
    assert "--reason" in mlops("canary", "abort", "2").stderr
    assert "--reason" in one_line(mlops("canary", "abort", "2", "--reason", " "))
    assert not home.exists()
