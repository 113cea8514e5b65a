"""Where the feature store keeps its state: ``$MLOPS_HOME/feast``, by default ``../var/feast``.

Feast reads ``feature_store.yaml`` before it runs any Python and knows no default for an unset variable, so that
file names the default home. `relocated` is the same configuration for another home.
"""

import os
from contextlib import suppress
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq

REPO = Path(__file__).resolve().parent
DEFAULT_HOME = REPO.parent / "var"
HOME = Path(os.environ.get("MLOPS_HOME", DEFAULT_HOME)).resolve()
FOLDER = HOME / "feast"
CUSTOMER_PROFILE = FOLDER / "customer_profile.parquet"
SERVICES = FOLDER / "services.json"
CONFIGURATION = FOLDER / "feature_store.yaml"


def relocated(home: Path) -> str:
    """The text of ``feature_store.yaml`` with all state under `home`."""
    return (REPO / "feature_store.yaml").read_text().replace("../var", str(home))


def create_empty(path: Path, columns: dict[str, pa.DataType]) -> None:
    """Create a parquet file of no rows where there is none yet, so that an empty store can be applied and joined."""
    if path.exists():
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(pa.schema(columns).empty_table(), draft)
    with suppress(FileExistsError):  # another process was first: its file stays
        os.link(draft, path)
    draft.unlink()


def _refuse_an_empty_home() -> None:
    """Stop what the platform refuses too: an empty path is the current folder."""
    if os.environ.get("MLOPS_HOME") == "":
        raise click.UsageError(f"MLOPS_HOME is empty: name a folder, or unset it for the default, {DEFAULT_HOME}")


def _refuse_to_mix_homes() -> None:
    """Stop a `feast` command whose registry and online store would lie in another home than its data."""
    context = click.get_current_context(silent=True)
    given = (context.find_root().obj or {}).get("FS_YAML_FILE") if context else None
    if given is None or HOME == DEFAULT_HOME or Path(given).resolve() != REPO / "feature_store.yaml":
        return
    CONFIGURATION.write_text(relocated(HOME))
    raise click.UsageError(
        f"MLOPS_HOME is {HOME}, and this configuration keeps its state in {DEFAULT_HOME}. "
        f"Name the relocated one: feast -f {CONFIGURATION} ... (or set FEAST_FS_YAML_FILE_PATH to it)"
    )


_refuse_an_empty_home()
FOLDER.mkdir(parents=True, exist_ok=True)
_refuse_to_mix_homes()
