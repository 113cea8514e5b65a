"""The feature store's door on a real Feast: real registry, real parquet, real online store, in a folder per test."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mlops_assets.data.time_leak import early_features, with_known_at
from mlops_assets.resources.feast import (
    BadFeatureRows,
    FeatureStoreDoor,
    FeatureStoreDown,
    FeatureStoreNotApplied,
    ServiceConflict,
    UnknownFeature,
)
from mlops_assets.resources.feast_online import OnlineFeatureStore
from mlops_assets.settings import PROJECT_ROOT, Settings
from mlops_assets.verdict import Verdict

pytestmark = pytest.mark.slow  # a real feature store

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
START = datetime(2026, 3, 1, tzinfo=UTC)
FEATURES = ("orders_90d", "spend_90d", "return_share_90d", "mean_basket_90d", "tenure_days")


def profile(*rows: tuple[str, datetime, float] | tuple[str, datetime, float, datetime]) -> pl.DataFrame:
    """Rows (customer, event, value[, created]); every feature has the same value; known at the event by default."""
    return pl.DataFrame(
        [
            {"customer_id": row[0], "event_timestamp": row[1], "created_timestamp": row[3] if len(row) > 3 else row[1]}
            | dict.fromkeys(FEATURES, row[2])
            for row in rows
        ]
    )


def asked(*rows: tuple[str | None, datetime]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "message_id": [f"m{i}" for i in range(len(rows))],
            "customer_id": [row[0] for row in rows],
            "event_timestamp": [row[1] for row in rows],
        },
        schema_overrides={"customer_id": pl.String, "event_timestamp": pl.Datetime("us", "UTC")},
    )


def served(door: FeatureStoreDoor, customer: str, as_of: datetime = START + 30 * DAY) -> float | None:
    return door.online([customer], as_of=as_of)[0].values["orders_90d"]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An applied registry to copy: creating its schema takes seconds."""
    settings = Settings(home=tmp_path_factory.mktemp("registry"), _env_file=None)
    FeatureStoreDoor(settings).apply()
    return settings.home / "feast" / "registry.db"


@pytest.fixture
def settings(tmp_path: Path, registry: Path) -> Settings:
    (tmp_path / "feast").mkdir()
    shutil.copy(registry, tmp_path / "feast" / "registry.db")
    return Settings(home=tmp_path, _env_file=None)


@pytest.fixture
def door(settings: Settings) -> FeatureStoreDoor:
    door = FeatureStoreDoor(settings)
    door.apply()
    return door


@pytest.fixture
def locked(door: FeatureStoreDoor, tmp_path: Path) -> Iterator[FeatureStoreDoor]:
    """The door of another home whose online store somebody holds and does not let go."""
    home = tmp_path / "locked"
    (home / "feast").mkdir(parents=True)
    shutil.copy(door.offline_path.with_name("online.db"), home / "feast" / "online.db")
    with closing(sqlite3.connect(home / "feast" / "online.db", isolation_level=None)) as holder:
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        yield FeatureStoreDoor(Settings(home=home, _env_file=None))


def test_importing_the_door_does_not_import_feast() -> None:
    check = "import sys, mlops_assets.resources.feast; sys.exit('feast' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_reading_online_imports_neither_torch_nor_what_only_joins_offline(door: FeatureStoreDoor) -> None:
    read = (
        "import sys; from datetime import UTC, datetime; from mlops_assets.serving.lookup import open_feast;"
        "from mlops_assets.settings import Settings;"
        "open_feast(Settings())('nobody', datetime.now(UTC)); print(*sys.modules)"
    )
    environment = {**os.environ, "MLOPS_HOME": str(door.offline_path.parent.parent)}
    loaded = subprocess.run([sys.executable, "-c", read], env=environment, capture_output=True, text=True, check=True)
    assert "feast" in (modules := set(loaded.stdout.split()))
    assert not modules & {"torch", "ibis", "duckdb", "polars"}


class TestSnapshot:
    """All that is served, held in memory: the same answers as the store's own, as long as its version stays."""

    def test_answers_as_the_store_does_for_everybody_and_every_age(self, door: FeatureStoreDoor) -> None:
        rows = profile(*((f"c{i}", START + i * DAY, float(i)) for i in range(200)))
        gaps = pl.when(pl.int_range(pl.len()) % 3 == 0).then(None).otherwise(pl.col("spend_90d"))
        door.push(rows.with_columns(spend_90d=gaps))
        snapshot = door.snapshot()
        assert snapshot is not None
        everybody = [f"c{i}" for i in range(201)]  # the last one is unknown
        for as_of in (START, START + 200 * DAY, START + 400 * DAY, START + 600 * DAY):
            online = door.online(everybody, as_of=as_of)
            assert [snapshot.online(customer, as_of) for customer in everybody] == online
        assert any(answer.found for answer in door.online(everybody, as_of=START + 400 * DAY))
        assert not all(answer.found for answer in door.online(everybody, as_of=START + 400 * DAY))

    def test_another_version_tells_of_every_write_by_whomever(self, door: FeatureStoreDoor, settings: Settings) -> None:
        door.push(profile(("c1", START, 1.0)))
        before = door.online_version()
        assert door.online_version() == before
        FeatureStoreDoor(settings).push(profile(("c1", START + HOUR, 2.0)))
        assert door.online_version() != before
        snapshot = door.snapshot()
        assert snapshot is not None
        assert snapshot.version == door.online_version()
        assert snapshot.online("c1", START + HOUR).values["orders_90d"] == 2.0

    def test_another_file_in_its_place_is_another_version(self, door: FeatureStoreDoor) -> None:
        before = door.online_version()
        path = door.offline_path.with_name("online.db")
        shutil.copy(path, path.with_name("copy.db"))
        path.with_name("copy.db").rename(path)
        assert door.online_version() != before

    def test_a_store_that_cannot_be_read_is_down(self, locked: FeatureStoreDoor) -> None:
        with pytest.raises(FeatureStoreDown):
            locked.snapshot()

    def test_too_many_customers_are_not_held(self, door: FeatureStoreDoor, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mlops_assets.resources.feast_online.MAX_SNAPSHOT", 1)
        door.push(profile(("c1", START, 1.0)))
        assert door.snapshot() is not None
        door.push(profile(("c2", START, 1.0)))
        assert door.snapshot() is None


class TestApply:
    def test_repeats_without_effect_and_gives_an_empty_store_that_answers(self, door: FeatureStoreDoor) -> None:
        assert door.apply() == door.apply()
        assert door.feature_names == FEATURES
        assert not door.online(["c1"], as_of=START)[0].found
        assert door.offline_join(asked(("c1", START)))["orders_90d"].to_list() == [None]

    def test_keeps_the_memory_of_materialisation(self, door: FeatureStoreDoor) -> None:
        door.materialize(START)
        door.apply()
        assert door.materialised_until() == START

    def test_brings_back_a_lost_online_store(self, door: FeatureStoreDoor) -> None:
        door.replace_offline(profile(("c1", START, 1.0)))
        door.materialize(START + DAY)
        for path in door.offline_path.parent.glob("online.db*"):
            path.unlink()
        door.apply()
        assert door.materialize(START + DAY).written == 1
        assert served(door, "c1") == 1.0

    def test_leaves_environment_and_modules_as_they_were(self, door: FeatureStoreDoor) -> None:
        door.apply()
        assert not {"state", "views", "sources", "services", "entities"} & set(sys.modules)


class TestServices:
    def test_one_per_version_kept_by_every_reapply_from_any_process(
        self, door: FeatureStoreDoor, settings: Settings
    ) -> None:
        assert door.register_service("intent_classifier", 1, FEATURES) == "intent_classifier_v1"
        assert door.register_service("intent_classifier", 2, ["tenure_days"]) == "intent_classifier_v2"
        assert FeatureStoreDoor(settings).apply().services == ("intent_classifier_v1", "intent_classifier_v2")

    def test_what_is_no_longer_declared_is_deleted(self, door: FeatureStoreDoor) -> None:
        door.register_service("intent_classifier", 1, FEATURES)
        door.services_path.unlink()
        assert door.apply().deleted == ("intent_classifier_v1",)
        assert door.apply().deleted == ()

    def test_registering_again_is_a_no_op_and_changing_a_version_is_refused(self, door: FeatureStoreDoor) -> None:
        door.register_service("intent_classifier", 1, ["tenure_days"])
        door.register_service("intent_classifier", 1, ["tenure_days"])
        with pytest.raises(ServiceConflict, match="register a new version"):
            door.register_service("intent_classifier", 1, ["orders_90d"])

    def test_a_model_without_features_and_one_with_a_misspelt_feature(self, door: FeatureStoreDoor) -> None:
        assert door.register_service("text_only", 1, []) == "text_only_v1"
        with pytest.raises(UnknownFeature, match=r"ordrs_90d; it has orders_90d"):
            door.register_service("intent_classifier", 1, ["ordrs_90d"])


class TestOfflineJoin:
    def test_takes_the_last_value_before_the_row(self, door: FeatureStoreDoor) -> None:
        door.replace_offline(profile(("c1", START, 1.0), ("c1", START + DAY, 2.0), ("c1", START + 2 * DAY, 3.0)))
        moments = [START - HOUR, START, START + DAY - HOUR, START + DAY, START + 9 * DAY]
        joined = door.offline_join(asked(*(("c1", moment) for moment in moments)))
        assert joined["spend_90d"].to_list() == [None, 1.0, 1.0, 2.0, 3.0]

    def test_never_takes_a_value_before_it_was_known(self, door: FeatureStoreDoor) -> None:
        door.replace_offline(profile(("c1", START, 1.0), ("c1", START + DAY, 2.0, START + 3 * DAY)))
        joined = door.offline_join(asked(("c1", START + 2 * DAY), ("c1", START + 3 * DAY)))
        assert joined["orders_90d"].to_list() == [1.0, 2.0]

    def test_of_one_event_told_twice_takes_what_was_created_last(self, door: FeatureStoreDoor) -> None:
        door.replace_offline(profile(("c1", START, 2.0, START + HOUR), ("c1", START, 1.0)))
        assert door.offline_join(asked(("c1", START + DAY)))["orders_90d"].to_list() == [2.0]

    def test_takes_nothing_past_its_time_to_live(self, door: FeatureStoreDoor) -> None:
        door.replace_offline(profile(("c1", START, 1.0)))
        joined = door.offline_join(asked(("c1", START + 365 * DAY), ("c1", START + 366 * DAY)))
        assert joined["orders_90d"].to_list() == [1.0, None]

    def test_returns_every_row_it_was_given_in_order(self, door: FeatureStoreDoor) -> None:
        door.replace_offline(profile(("c1", START, 1.0)))
        rows = asked(("c1", START + DAY), ("unknown", START + DAY), (None, START), ("c1", START + DAY))
        joined = door.offline_join(rows.with_columns(pl.col("event_timestamp").dt.cast_time_unit("ns")), ["orders_90d"])
        assert joined["message_id"].to_list() == ["m0", "m1", "m2", "m3"]
        assert joined["orders_90d"].to_list() == [1.0, None, None, 1.0]
        assert joined.columns == [*rows.columns, "orders_90d"]

    def test_of_no_rows_gives_no_rows(self, door: FeatureStoreDoor) -> None:
        assert door.offline_join(asked()).height == 0

    def test_agrees_with_a_plain_search_on_random_histories(self, door: FeatureStoreDoor) -> None:
        rng = np.random.default_rng(20260301)
        hours = rng.integers(0, 24 * 60, size=(400, 2))
        rows = [
            (f"c{rng.integers(40)}", START + int(event) * HOUR, float(i), START + int(event + lag % 72) * HOUR)
            for i, (event, lag) in enumerate(hours)
        ]
        door.replace_offline(profile(*rows))
        questions = [(f"c{rng.integers(45)}", START + int(h) * HOUR) for h in rng.integers(0, 24 * 70, size=300)]

        def search(customer: str, moment: datetime) -> float | None:
            known = [row for row in rows if row[0] == customer and row[1] <= moment and row[3] <= moment]
            return max(known, key=lambda row: (row[1], row[3]), default=(0, 0, None))[2]

        ties = len({(row[0], row[1], row[3]) for row in rows}) < len(rows)
        assert not ties, "the answer would be open"
        joined = door.offline_join(asked(*questions))
        assert joined["orders_90d"].to_list() == [search(*question) for question in questions]

    def test_refuses_local_time_and_unknown_features(self, door: FeatureStoreDoor) -> None:
        naive = asked(("c1", START)).with_columns(pl.col("event_timestamp").dt.replace_time_zone(None))
        with pytest.raises(BadFeatureRows, match="with a zone"):
            door.offline_join(naive)
        with pytest.raises(UnknownFeature):
            door.offline_join(asked(("c1", START)), ["nonsense"])

    def test_gives_no_value_that_a_replay_by_other_means_dates_after_the_message(self, door: FeatureStoreDoor) -> None:
        rng = np.random.default_rng(5)
        moments = [START + timedelta(minutes=int(minute)) for minute in rng.integers(0, 40_000, 900)]
        late = [moment + timedelta(minutes=int(rng.integers(3_000))) for moment in moments]
        door.replace_offline(profile(*((f"c{i % 30}", moments[i], float(i), late[i]) for i in range(900))))
        joined = door.offline_join(asked(*((f"c{i % 30}", moments[-i]) for i in range(900))))
        dated = with_known_at(joined, door.offline_rows(), FEATURES)
        assert joined["orders_90d"].is_not_null().sum() > 600
        assert early_features(dated, FEATURES) == 0
        assert early_features(dated.with_columns(pl.col("event_timestamp") - 3 * DAY), FEATURES) > 600


class TestMaterialize:
    def test_serves_what_was_known_then_and_writes_only_what_changed(self, door: FeatureStoreDoor) -> None:
        door.replace_offline(profile(("c1", START, 1.0), ("c2", START, 5.0), ("c1", START + 2 * DAY, 2.0)))
        assert door.materialize(START + DAY).written == 2
        assert (served(door, "c1"), served(door, "c2")) == (1.0, 5.0)
        assert door.materialize(START + 3 * DAY).written == 1
        assert (served(door, "c1"), served(door, "c2")) == (2.0, 5.0)
        assert door.materialize(START + 3 * DAY).written == 0

    def test_picks_up_rows_that_came_late(self, door: FeatureStoreDoor) -> None:
        door.replace_offline(profile(("c1", START, 1.0), ("c1", START + HOUR, 2.0, START + 2 * DAY)))
        door.materialize(START + DAY)
        assert served(door, "c1") == 1.0, "not known yet"
        done = door.materialize(START + 3 * DAY)
        assert (done.since, done.written, done.late) == (START + DAY, 1, 1)
        assert served(door, "c1") == 2.0

    def test_picks_up_a_row_written_after_the_run_that_should_have_seen_it(self, door: FeatureStoreDoor) -> None:
        door.materialize(START + DAY)
        door.replace_offline(profile(("c1", START, 1.0)))
        door.materialize(START + DAY)
        assert served(door, "c1") == 1.0

    def test_picks_up_a_correction_of_the_same_event(self, door: FeatureStoreDoor) -> None:
        door.replace_offline(profile(("c1", START, 1.0)))
        door.materialize(START + DAY)
        door.replace_offline(profile(("c1", START, 4.0)))
        door.materialize(START + 2 * DAY)
        assert served(door, "c1") == 4.0

    def test_never_replaces_what_was_pushed_after_that_time(self, door: FeatureStoreDoor) -> None:
        door.replace_offline(profile(("c1", START, 1.0), ("c2", START, 1.0)))
        door.push(profile(("c1", START + DAY, 9.0), ("c2", START + HOUR, 8.0, START + DAY)))
        assert door.materialize(START + 2 * HOUR).written == 0
        assert (served(door, "c1"), served(door, "c2")) == (9.0, 8.0)

    def test_serves_nothing_that_was_withdrawn_and_what_was_known_before_it_again(self, door: FeatureStoreDoor) -> None:
        late, ghost = ("c1", START + HOUR, 99.0, START + 2 * HOUR), ("ghost", START, 7.0)
        door.replace_offline(profile(("c1", START, 1.0), late, ghost, ("c2", START, 5.0)))
        door.materialize(START + DAY)
        assert [served(door, customer) for customer in ("c1", "ghost", "c2")] == [99.0, 7.0, 5.0]
        door.replace_offline(profile(("c1", START, 1.0), ("c2", START, 5.0)))
        done = door.materialize(START + DAY)
        assert (done.customers, done.written, done.gone) == (2, 1, 1)
        assert [served(door, customer) for customer in ("c1", "ghost", "c2")] == [1.0, None, 5.0]
        assert door.check_skew(["c1", "ghost", "c2"], as_of=START + DAY).verdict is Verdict.PASS

    def test_picks_up_a_correction_that_is_known_earlier_than_what_it_corrects(self, door: FeatureStoreDoor) -> None:
        door.replace_offline(profile(("c1", START, 4.0, START + HOUR)))
        door.materialize(START + DAY)
        door.replace_offline(profile(("c1", START, 1.0)))
        door.materialize(START + DAY)
        assert served(door, "c1") == 1.0

    def test_that_fails_half_way_leaves_what_was_served(self, door: FeatureStoreDoor) -> None:
        door.replace_offline(profile(("c1", START, 1.0), ("c1", START + HOUR, 99.0)))
        door.materialize(START + DAY)
        door.replace_offline(profile(("c1", START, 1.0)))
        with closing(sqlite3.connect(door.offline_path.with_name("online.db"))) as other:
            other.execute(
                "CREATE TRIGGER full BEFORE INSERT ON mlops_assets_customer_profile "
                "BEGIN SELECT RAISE(ABORT, 'full'); END"
            )
            with pytest.raises(FeatureStoreDown, match="full"):
                door.materialize(START + DAY)
            assert served(door, "c1") == 99.0
            other.execute("DROP TRIGGER full")
        door.materialize(START + DAY)
        assert served(door, "c1") == 1.0

    def test_carries_nulls_and_exact_event_times(self, door: FeatureStoreDoor) -> None:
        moment = START + timedelta(microseconds=123_457)
        empty = profile(("c1", moment, 1.0)).with_columns(pl.lit(None, pl.Float64).alias(name) for name in FEATURES)
        door.replace_offline(empty)
        door.materialize(START + DAY)
        (answer,) = door.online(["c1"], as_of=START + DAY)
        assert (answer.found, answer.event_timestamp) == (True, moment)
        assert set(answer.values.values()) == {None}
        assert door.materialize(START + DAY).written == 0

    def test_before_the_first_apply_it_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(FeatureStoreNotApplied):
            FeatureStoreDoor(Settings(home=tmp_path / "fresh", _env_file=None)).materialize(START)


class TestPush:
    def test_is_served_at_once_and_joins_from_when_it_was_known(self, door: FeatureStoreDoor) -> None:
        door.push(profile(("c1", START, 1.0, START + HOUR)))
        assert served(door, "c1") == 1.0
        assert door.offline_join(asked(("c1", START), ("c1", START + HOUR)))["orders_90d"].to_list() == [None, 1.0]

    def test_feasts_own_as_the_readme_shows_it_is_served_and_offline_nothing_changes(
        self, door: FeatureStoreDoor, tmp_path: Path
    ) -> None:
        readme = (PROJECT_ROOT / "feature_repo" / "README.md").read_text()
        (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
        (tmp_path / "var").symlink_to(tmp_path)
        subprocess.run([sys.executable, "-c", example], cwd=tmp_path, check=True)
        assert served(door, "C-1", as_of=datetime.now(UTC)) == 3.0
        assert door.offline_rows().is_empty()

    def test_an_older_event_stays_behind_the_newer_one_in_any_order(self, door: FeatureStoreDoor) -> None:
        door.push(profile(("c1", START + DAY, 2.0)))
        door.push(profile(("c1", START, 1.0, START + 2 * DAY)))
        assert served(door, "c1") == 2.0
        door.push(profile(("c1", START + 3 * DAY, 4.0), ("c1", START + 2 * DAY, 3.0)))
        assert served(door, "c1") == 4.0

    def test_without_a_known_time_it_is_known_from_now_on(self, door: FeatureStoreDoor) -> None:
        door.push(profile(("c1", START, 1.0)).drop("created_timestamp"))
        assert door.offline_join(asked(("c1", START)))["orders_90d"].to_list() == [None]
        assert door.offline_join(asked(("c1", datetime.now(UTC))))["orders_90d"].to_list() == [1.0]

    def test_repeated_changes_nothing(self, door: FeatureStoreDoor) -> None:
        rows = profile(("c1", START, 1.0))
        door.push(rows)
        door.push(rows)
        assert pl.read_parquet(door.offline_path).height == 1

    def test_refuses_rows_that_the_view_cannot_take(self, door: FeatureStoreDoor) -> None:
        rows = profile(("c1", START, 1.0))
        with pytest.raises(BadFeatureRows, match="tenure_days"):
            door.push(rows.drop("tenure_days"))
        with pytest.raises(BadFeatureRows, match="with a zone"):
            door.push(rows.with_columns(pl.col("event_timestamp").dt.replace_time_zone(None)))
        with pytest.raises(BadFeatureRows, match="must not be null"):
            door.push(rows.with_columns(customer_id=pl.lit(None, pl.String)))
        with pytest.raises(BadFeatureRows, match="orders_90d"):
            door.push(rows.with_columns(orders_90d=pl.lit("many")))


class TestOnline:
    def test_answers_in_the_order_asked_and_flags_the_unknown(self, door: FeatureStoreDoor) -> None:
        door.push(profile(("c1", START, 1.0), ("c2", START, 2.0)))
        answers = door.online(["c2", "nobody", "c1", "c2"], as_of=START + DAY)
        assert [a.values["orders_90d"] for a in answers] == [2.0, None, 1.0, 2.0]
        assert [a.found for a in answers] == [True, False, True, True]
        assert tuple(answers[1].values) == FEATURES

    def test_a_value_past_its_time_to_live_is_not_found(self, door: FeatureStoreDoor) -> None:
        door.push(profile(("c1", START, 1.0)))
        (answer,) = door.online(["c1"], as_of=START + 366 * DAY)
        assert (answer.found, answer.values["orders_90d"], answer.event_timestamp) == (False, None, START)

    def test_a_missing_store_is_down_and_comes_back(self, door: FeatureStoreDoor, settings: Settings) -> None:
        door.push(profile(("c1", START, 1.0)))
        reader = FeatureStoreDoor(settings)
        assert served(reader, "c1") == 1.0
        online = door.offline_path.with_name("online.db")
        online.rename(online.with_suffix(".away"))
        with pytest.raises(FeatureStoreDown, match="does not exist"):
            reader.online(["c1"], as_of=START)
        assert not online.exists(), "asking must not create an empty store"
        online.with_suffix(".away").rename(online)
        assert served(reader, "c1") == 1.0

    def test_a_locked_store_is_down_within_its_deadline(self, locked: FeatureStoreDoor) -> None:
        assert locked.feature_names  # opened: what follows is the look-up alone
        started = time.perf_counter()
        with pytest.raises(FeatureStoreDown, match="locked"):
            locked.online(["c1"], as_of=START)
        assert time.perf_counter() - started < 1.0

    def test_a_damaged_store_is_down(self, door: FeatureStoreDoor) -> None:
        for path in door.offline_path.parent.glob("online.db*"):
            path.unlink()
        door.offline_path.with_name("online.db").write_bytes(b"not a database" * 500)
        with pytest.raises(FeatureStoreDown, match="not a database"):
            door.online(["c1"], as_of=START)

    def test_a_damaged_offline_file_is_named_with_what_writes_it_anew(self, door: FeatureStoreDoor) -> None:
        door.push(profile(("c1", START, 1.0)))
        whole = door.offline_path.read_bytes()
        door.offline_path.write_bytes(whole[: len(whole) // 2])
        for use in (lambda: door.materialize(START), lambda: door.forget("c1")):
            with pytest.raises(FeatureStoreDown, match=r"customer_profile\.parquet.*materialize customer_features"):
                use()
        door.replace_offline(profile(("c1", START, 1.0)))
        assert door.materialize(START).customers == 1

    def test_an_offline_file_of_another_version_of_the_view_is_named_too(self, door: FeatureStoreDoor) -> None:
        profile(("c1", START, 1.0)).drop("orders_90d").write_parquet(door.offline_path)
        with pytest.raises(FeatureStoreDown, match=r"customer_profile\.parquet: columns missing: orders_90d"):
            door.offline_rows()

    def test_a_write_in_progress_does_not_stop_reads(self, door: FeatureStoreDoor) -> None:
        door.push(profile(("c1", START, 1.0)))
        with closing(sqlite3.connect(door.offline_path.with_name("online.db"), isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("UPDATE mlops_assets_customer_profile SET created_ts = 0")
            assert served(door, "c1") == 1.0
            writer.execute("ROLLBACK")

    def test_one_customer_takes_well_under_a_millisecond(self, door: FeatureStoreDoor) -> None:
        door.push(profile(*((f"c{i}", START, float(i)) for i in range(500))))
        seconds = []
        for i in range(500):
            started = time.perf_counter()
            door.online([f"c{i}"], as_of=START + DAY)
            seconds.append(time.perf_counter() - started)
        assert np.median(seconds) < 0.001


def told_by_feast(door: FeatureStoreDoor, customers: Sequence[str]) -> list[dict[str, float | None]]:
    """What Feast's own SDK looks up, opened as any user of it would."""
    from feast import FeatureStore

    store = FeatureStore(fs_yaml_file=door.offline_path.with_name("feature_store.yaml"))
    told = store.get_online_features(
        features=[f"customer_profile:{name}" for name in FEATURES],
        entity_rows=[{"customer_id": customer} for customer in customers],
    ).to_dict()
    return [{name: told[name][row] for name in FEATURES} for row in range(len(customers))]


class TestBesideFeast:
    """The reader of an endpoint and its snapshot, beside Feast's own look-up in the store that was materialised."""

    @pytest.fixture
    def now(self, door: FeatureStoreDoor) -> datetime:
        """When a history was materialised: of each customer c0 to c59 two events, the later one 10 n + 1 days ago."""
        now = datetime.now(UTC)
        last = [(f"c{n}", now - (10 * n + 1) * DAY, float(n)) for n in range(60)]
        earlier = [(customer, at - 30 * DAY, value + 0.5) for customer, at, value in last]
        not_known_yet = [(customer, at + HOUR, value + 0.25, now + DAY) for customer, at, value in last[:5]]
        history = profile(*last, *earlier, *not_known_yet)
        each_its_own = [pl.col(name) + 1000 * number for number, name in enumerate(FEATURES)]
        gaps = pl.when(pl.col("spend_90d") % 3 == 0).then(None).otherwise(pl.col("spend_90d")).alias("spend_90d")
        door.replace_offline(history.with_columns(each_its_own).with_columns(gaps))
        assert door.materialize(now).written == 60
        return now

    def test_everybody_has_the_same_values_feature_by_feature(
        self, door: FeatureStoreDoor, settings: Settings, now: datetime
    ) -> None:
        everybody = [*(f"c{n}" for n in range(60)), "nobody"]
        told = told_by_feast(door, everybody)
        nothing = dict.fromkeys(FEATURES)
        assert told[1] == dict(zip(FEATURES, (1.0, 1001.0, 2001.0, 3001.0, 4001.0), strict=True))
        assert told[-1] == nothing
        reader = OnlineFeatureStore(settings)
        snapshot = reader.snapshot()
        assert snapshot is not None
        # Feast's look-up does not ask how old a value is; the reader leaves out what is older than a year by then.
        for as_of, good in ((now - 300 * DAY, 60), (now, 37), (now + 300 * DAY, 7)):
            expected = [*told[:good], *([nothing] * (61 - good))]
            assert [answer.values for answer in reader.online(everybody, as_of=as_of)] == expected
            assert [snapshot.online(customer, as_of).values for customer in everybody] == expected


class TestSkew:
    def test_after_materialisation_both_sides_agree(self, door: FeatureStoreDoor) -> None:
        door.replace_offline(profile(*((f"c{i}", START + i * HOUR, float(i)) for i in range(50))))
        door.materialize(START + 10 * DAY)
        report = door.check_skew(door.sample_customers(30, seed=1), as_of=START + 10 * DAY)
        assert (report.verdict, report.sampled, report.compared) == (Verdict.PASS, 30, 30)

    def test_samples_also_whoever_is_served_and_no_longer_known(self, door: FeatureStoreDoor) -> None:
        door.replace_offline(profile(("c1", START, 1.0), ("ghost", START, 7.0)))
        door.materialize(START + DAY)
        door.replace_offline(profile(("c1", START, 1.0)))
        report = door.check_skew(door.sample_customers(10, seed=1), as_of=START + DAY)
        assert report.mismatched_customers == ("ghost",)

    def test_every_planted_mismatch_is_found_and_no_other(self, door: FeatureStoreDoor) -> None:
        customers = [f"c{i}" for i in range(60)]
        door.replace_offline(profile(*((customer, START, 1.0) for customer in customers)))
        door.materialize(START + DAY)
        late = profile(*((customer, START + HOUR, 2.0, START + 2 * DAY) for customer in customers[:7]))
        door.replace_offline(pl.concat([profile(*((c, START, 1.0) for c in customers)), late]))
        report = door.check_skew(customers, as_of=START + 3 * DAY)
        assert report.mismatched_customers == tuple(sorted(customers[:7]))
        assert {m.feature for m in report.mismatches} == set(FEATURES)
        assert {(m.online, m.offline) for m in report.mismatches} == {(1.0, 2.0)}

    def test_an_empty_store_is_insufficient_data(self, door: FeatureStoreDoor) -> None:
        assert door.check_skew([], as_of=START).verdict is Verdict.INSUFFICIENT_DATA
        assert door.check_skew(["nobody"], as_of=START).verdict is Verdict.INSUFFICIENT_DATA


def test_a_customer_that_is_forgotten_is_in_no_byte_of_either_store(door: FeatureStoreDoor, settings: Settings) -> None:
    door.push(profile(("a-customer", START, 1.0), ("b-customer", START, 2.0), ("a-customer", START + DAY, 3.0)))
    watching = door.online_version()
    assert (door.forget("a-customer").offline, door.forget("a-customer").online) == (2, 0)
    assert served(door, "a-customer") is None
    assert served(door, "b-customer") == 2.0
    assert door.offline_rows()["customer_id"].to_list() == ["b-customer"]
    assert watching is not None  # a reader that had it open
    for path in (settings.home / "feast").iterdir():
        assert b"a-customer" not in path.read_bytes(), path
