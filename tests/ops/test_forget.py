"""A customer is forgotten: no file of the home holds the id or a word of theirs, and everybody else's rows stay."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest
from dagster._core.utils import make_new_run_id
from typer.testing import CliRunner

from mlops_assets.cli import app
from mlops_assets.data.ingest import write_days
from mlops_assets.data.snapshots import load_snapshot, write_snapshot
from mlops_assets.data.tables import write_table
from mlops_assets.declarations import find_specs
from mlops_assets.lineage.measures import features_path
from mlops_assets.monitoring.predictions import join_labels, read_feedback, read_predictions
from mlops_assets.ops import forget as forgetting
from mlops_assets.ops.forget import ForgetRefused, Forgotten, forget_customer
from mlops_assets.ops.setup import DAGSTER_YAML, dagster_instance
from mlops_assets.report.quality_page import write_quality_page
from mlops_assets.resources.feast import FeatureStoreDoor
from mlops_assets.serving.append_log import AppendLog
from mlops_assets.settings import Settings
from mlops_assets.spec import EncoderSpec, ModelSpec
from mlops_assets.storage import write_atomic
from mlops_assets.training.embedding_cache import embed
from mlops_assets.training.encoder import resolve
from tests.data.factories import events, messages
from tests.lineage.world import loop_in, run_days
from tests.monitoring.test_predictions import label, log, prediction
from tests.training.tiny import write_encoder

pytestmark = pytest.mark.slow  # Feast, torch and a real Dagster instance
DAY = datetime(2026, 3, 1, tzinfo=UTC)
GONE = "cust-4711"
SAID = ["my street is Elm Row 7", "call me at 555-0199", "Elm Row again, please"]


def holders(home: Path, word: str) -> list[str]:
    """The files under a home that hold a word: as bytes, in a table's cells, or as the key of an embedding."""
    found = []
    for path in sorted(home.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if word.encode() in content or json.dumps(word)[1:-1].encode() in content or word in cells(path):
                found.append(str(path.relative_to(home)))
    return found


def cells(path: Path) -> str:
    if path.suffix == ".parquet" and path.read_bytes().endswith(b"PAR1"):
        return pl.read_parquet(path).select(pl.selectors.string()).write_csv()
    if path.suffix == ".npz":
        keys = np.load(path)["keys"]
        return " ".join(text for text in SAID if hashlib.sha256(text.encode()).digest() in {k.tobytes() for k in keys})
    return ""


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which every store holds something of the customer and of others, written by those who write it."""
    home = tmp_path_factory.mktemp("lived") / "home"
    write_atomic(home / "dagster" / "dagster.yaml", DAGSTER_YAML.encode())
    loop = loop_in(home)
    with dagster_instance(loop.settings) as instance:
        FeatureStoreDoor(loop.settings).apply()
        texts = [SAID[0], *(f"where is my order number {n}" for n in range(18)), ""]
        customers = [GONE, *(f"c{n}" for n in range(18)), GONE]  # an empty text: one row in quarantine
        frame = messages(20, text=texts, customer_id=customers).with_columns(note=pl.lit("n"))
        write_table(
            loop.home.incoming / "messages" / "first.csv", frame.with_columns(pl.col(pl.Datetime).dt.strftime("%+"))
        )
        write_table(
            loop.home.incoming / "messages" / "theirs.parquet",
            messages(1, message_id=["x"], text=[SAID[1]], customer_id=[GONE]),
        )
        write_atomic(loop.home.incoming / "messages" / "broken.csv", f"customer_id,words\n{GONE},{SAID[1]}\n".encode())
        write_atomic(loop.home.incoming / "messages" / "torn.csv", f"a,b\n1,2,{GONE}\n".encode())
        bought = events([(GONE, 1.0, 2, 10.0, 0, 0.0), ("c1", 2.0, 1, 5.0, 0, 0.0)] * 3)
        write_table(loop.settings.customer_events / "bought.parquet", bought)
        assert run_days(loop, instance, "ingest", DAY, DAY).success
        assert run_days(loop, instance, "refresh_features", DAY, DAY).success
    live(loop.settings, loop.spec)
    return home


def live(settings: Settings, spec: ModelSpec) -> None:
    """Predictions, labels, copies of a canary, a snapshot, embeddings, and a page that quotes the quarantine."""
    home = settings.model_home(spec.name)
    said = [prediction(n, customer_id=GONE, text=SAID[2]) if n % 2 else prediction(n) for n in range(6)]
    log(home.predictions, *said, torn=json.dumps(said[1])[:250] + "\n")
    log(home.feedback, *(label(n, DAY + timedelta(days=1)) for n in range(6)))
    shadow = AppendLog(home.shadow, "replica")
    for n in range(6):
        shadow.append({"prediction_id": f"p{n}", "status": "ok", "label": "refund"})
    rows = join_labels(
        read_predictions(home.predictions).rows, read_feedback(home.feedback).rows, DAY + timedelta(days=2)
    )
    write_days(rows, [DAY], home.labelled)
    learned = pl.read_parquet(home.validated / "2026-03-01.parquet")
    made = write_snapshot(home.snapshots, learned, {"until": "2026-03-02"})
    write_table(features_path(home, made.digest), learned.select("message_id").with_columns(orders_90d=pl.lit(1.0)))
    encoder = write_encoder(settings.home / "encoder")
    embed(
        [*SAID, "hello"],
        resolve(EncoderSpec(name=str(encoder), revision=None, weights_sha256=None, max_tokens=16)),
        home.embeddings,
    )
    write_quality_page(home, spec)


@pytest.fixture
def settings(lived_in: Path, tmp_path: Path) -> Settings:
    """A copy of that home, whose model is declared."""
    home = tmp_path / "home"
    shutil.copytree(lived_in, home)
    models = tmp_path / "models"
    write_atomic(models / "m" / "defs.yaml", b"type: x\nattributes: {name: m}\n")
    return Settings(home=home, models_dir=models, _env_file=None)


def by_store(found: Forgotten) -> dict[str, int]:
    return {store.store: store.rows for store in found.removed if store.rows or store.files}


def test_nothing_of_the_customer_is_left_and_what_went_is_said(settings: Settings) -> None:
    before = {word: holders(settings.home, word) for word in (GONE, *SAID)}
    assert len(before[GONE]) > 10
    assert all(before.values())
    found = forget_customer(settings, GONE)
    assert not any(holders(settings.home, word) for word in (GONE, *SAID))
    assert by_store(found) == {
        "m/predictions": 3, "m/feedback": 3, "m/shadow": 3, "m/labelled": 3,
        "m/incoming/messages": 3, "incoming/customer_events": 3, "m/validated": 2,
        "m/quarantine": 1, "m/quarantine/files": 1,
        "m/snapshots": 2, "m/snapshots/features": 2, "m/embeddings": 3,
        "feast/offline": 1, "feast/online": 5,
    }  # fmt: skip


def test_everybody_else_keeps_every_row(settings: Settings) -> None:
    home = settings.model_home("m")
    forget_customer(settings, GONE)
    assert pl.read_csv(home.incoming / "messages" / "first.csv").height == 18
    assert not (home.incoming / "messages" / "theirs.parquet").exists()  # all of it was theirs
    assert read_predictions(home.predictions).rows["prediction_id"].to_list() == ["p0", "p2", "p4"]
    assert read_predictions(home.predictions).torn == 0
    assert read_feedback(home.feedback).rows.height == 3
    assert pl.read_parquet(home.validated / "2026-03-01.parquet").height == 18
    assert FeatureStoreDoor(settings).offline_rows()["customer_id"].unique().to_list() == ["c1"]
    assert holders(settings.home, "where is my order number 3")


def test_a_snapshot_says_what_was_taken_out_and_is_still_checked(settings: Settings) -> None:
    folder = settings.model_home("m").snapshots
    (path,) = folder.glob("*.parquet")
    forget_customer(settings, GONE)
    snapshot = load_snapshot(folder, path.stem)
    assert snapshot.read().height == 18
    assert [entry.rows for entry in snapshot.forgotten] == [2]
    assert snapshot.content != snapshot.digest == path.stem


def test_a_second_time_there_is_nothing_to_remove(settings: Settings) -> None:
    forget_customer(settings, GONE)
    assert forget_customer(settings, GONE).rows == 0


@pytest.mark.parametrize("customer", ["Zoë", 'the "boss"'])
@pytest.mark.parametrize("ascii_only", [False, True], ids=["in UTF-8", "in ASCII"])
def test_what_was_cut_off_goes_however_json_writes_the_id(settings: Settings, customer: str, ascii_only: bool) -> None:
    home = settings.model_home("m")
    whole = json.dumps(prediction(1, customer_id=customer), ensure_ascii=ascii_only)
    for folder in (home.predictions, home.quarantine / "files"):
        write_atomic(folder / "cut.ndjson", whole[:250].encode())
    assert len(holders(settings.home, customer)) == 2
    forget_customer(settings, customer)
    assert holders(settings.home, customer) == []


def test_an_id_is_found_as_pandas_writes_it_beside_a_gap(settings: Settings) -> None:
    inbox = settings.model_home("m").incoming / "messages"
    frame = messages(3, message_id=["g1", "g2", "g3"]).drop("customer_id").to_pandas()
    frame.assign(customer_id=[1001, None, 1002]).to_csv(inbox / "gaps.csv", index=False)
    assert by_store(forget_customer(settings, "1001")) == {"m/incoming/messages": 1}
    assert pl.read_csv(inbox / "gaps.csv")["customer_id"].to_list() == [None, 1002.0]


STEPS = ("drop", "erase_from_snapshots", "erase_from_log", "erase_from_tables", "_erase_features")


@pytest.mark.parametrize("step", STEPS)
def test_what_a_crash_cut_short_the_next_call_finishes(
    settings: Settings, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Stands for a kill -9 right after a step was done."""

    where = "mlops_assets.training.embedding_cache" if step == "drop" else "mlops_assets.ops.forget"
    with monkeypatch.context() as patch:
        real = getattr(__import__(where, fromlist=[step]), step)

        def done_and_killed(*arguments: object) -> None:
            result = real(*arguments)
            list(result) if isinstance(result, Iterator) else None
            raise Killed

        patch.setattr(f"{where}.{step}", done_and_killed)
        with pytest.raises(Killed):
            forget_customer(settings, GONE)
    forget_customer(settings, GONE)
    assert not any(holders(settings.home, word) for word in (GONE, *SAID))


KILLED = """
import os, signal, sys
from pathlib import Path
from mlops_assets.data.tables import read_table, write_table
day = Path(sys.argv[1])
os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
write_table(day, read_table(day))
"""


def test_what_a_killed_writer_left_unfinished_goes_too(settings: Settings) -> None:
    home = settings.model_home("m")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(home.validated / "2026-03-01.parquet")])
    assert killed.returncode == -signal.SIGKILL
    theirs = home.incoming / "messages" / "theirs.parquet"
    shutil.copyfile(theirs, theirs.with_name(".theirs.parquet.part"))  # as `mlops ingest` copies
    found = forget_customer(settings, GONE)
    assert by_store(forget_customer(settings, GONE)) == {}
    assert [store.files for store in found.removed if store.store == "unfinished"] == [2]
    assert not list(home.root.rglob(".*.parquet.*"))


def test_the_endpoint_may_go_on_writing(settings: Settings) -> None:
    folder = settings.model_home("m").predictions
    writer = AppendLog(folder, "live")
    for n in range(10, 14):
        writer.append(prediction(n, customer_id=GONE if n % 2 else "c9"))
    forget_customer(settings, GONE)
    writer.append(prediction(20, customer_id="c9"))
    logged = read_predictions(folder)
    assert set(logged.rows["prediction_id"]) >= {"p10", "p12", "p20"}
    assert logged.torn == 0
    assert GONE not in set(logged.rows["customer_id"])


def test_a_folder_that_is_no_home_is_not_said_to_be_free_of_the_customer(tmp_path: Path) -> None:
    with pytest.raises(ForgetRefused, match="is no home of this platform, so nothing was searched"):
        forget_customer(Settings(home=tmp_path / "misspelt"), GONE)


def test_a_run_in_flight_is_waited_for(settings: Settings) -> None:
    with dagster_instance(settings) as instance:
        run = instance.add_run(dg.DagsterRun("m_ingest", run_id=make_new_run_id(), status=dg.DagsterRunStatus.STARTED))
    with pytest.raises(ForgetRefused, match=f"run {run.run_id[:8]} is in flight"):
        forget_customer(settings, GONE)
    assert holders(settings.home, GONE)


def test_a_run_that_began_meanwhile_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    real = forgetting._erase_features

    def with_a_run(*arguments: object) -> object:
        with dagster_instance(settings) as instance:
            instance.add_run(dg.DagsterRun("m_ingest", run_id=make_new_run_id()))
        return real(*arguments)

    monkeypatch.setattr(forgetting, "_erase_features", with_a_run)
    assert len(forget_customer(settings, GONE).meanwhile) == 1


def test_the_command_asks_first_and_counts_for_people_and_machines(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_HOME", str(settings.home))
    monkeypatch.setenv("MLOPS_MODELS_DIR", str(settings.models_dir))
    monkeypatch.chdir(settings.home)
    refused = CliRunner().invoke(app, ["forget", GONE], input="n\n")
    assert (refused.exit_code, bool(holders(settings.home, GONE))) == (1, True)
    said = CliRunner().invoke(app, ["forget", GONE, "--yes", "--json"])
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["rows"] == 35
    again = CliRunner().invoke(app, ["forget", GONE], input="y\n")
    assert "0 rows are gone" in again.stdout


def test_every_declared_model_is_cleaned(settings: Settings) -> None:
    write_atomic(settings.models_dir / "n" / "defs.yaml", b"type: x\nattributes: {name: n}\n")
    log(settings.model_home("n").predictions, prediction(1, customer_id=GONE))
    assert [spec.name for spec in find_specs(settings.models_dir)] == ["m", "n"]
    assert by_store(forget_customer(settings, GONE))["n/predictions"] == 1
