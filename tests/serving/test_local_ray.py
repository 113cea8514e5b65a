"""Where a Ray of our own keeps its sockets: out of other users' reach, in short paths, and not for ever."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlops_assets.serving import haproxy
from mlops_assets.serving.local_ray import FolderNotPrivate, clear, private_folder, temporary_folder
from mlops_assets.settings import Settings

SESSION = "session_2026-11-26_20-50-31_313220_4194304"
NODE = "9734ef0720d785beeeca8a38d6862d7534105fcece9c57580aadfd18"
NOBODY = 65534


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """A home whose temporary folder is not there yet."""
    settings = Settings(_env_file=None, home=tmp_path / "home")
    folder = temporary_folder(settings)
    yield settings
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def as_a_file(folder: Path) -> None:
    folder.write_text("")


def as_a_link(folder: Path) -> None:
    folder.symlink_to(folder.parent / "elsewhere")


def open_to_others(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)


def as_somebody_elses(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a folder that is another user's")
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)


def test_the_folder_is_for_its_user_alone(settings: Settings) -> None:
    folder = private_folder(settings)
    assert (folder.stat().st_mode & 0o777, folder.stat().st_uid) == (0o700, os.geteuid())
    assert private_folder(settings) == folder


@pytest.mark.parametrize("made", [as_a_file, as_a_link, open_to_others, as_somebody_elses])
def test_what_somebody_else_put_in_its_place_is_refused(settings: Settings, made: Callable[[Path], None]) -> None:
    made(temporary_folder(settings))
    with pytest.raises(FolderNotPrivate, match=f"{temporary_folder(settings)} must be a folder that belongs to"):
        clear(settings)


@pytest.mark.parametrize("made", [as_a_link, as_somebody_elses])
def test_a_node_starts_no_haproxy_beside_what_somebody_else_put_there(
    settings: Settings, made: Callable[[Path], None]
) -> None:
    folder = temporary_folder(settings)
    wrapper = haproxy.environment(folder, settings)["RAY_SERVE_HAPROXY_BINARY_PATH"]
    made(folder)
    started = subprocess.run([wrapper, "-v"], capture_output=True, text=True)
    assert (started.returncode, started.stdout) == (1, "")
    assert str(folder) in started.stderr


def test_a_folder_that_ray_made_on_a_node_is_closed_before_haproxy_starts(settings: Settings) -> None:
    folder = temporary_folder(settings)
    wrapper = haproxy.environment(folder, settings)["RAY_SERVE_HAPROXY_BINARY_PATH"]
    open_to_others(folder)
    assert "HAProxy" in subprocess.run([wrapper, "-v"], capture_output=True, text=True, check=True).stdout
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_paths_of_sockets_are_short_enough(settings: Settings) -> None:
    folder = temporary_folder(settings)
    assert len(f"{folder}/ray/{SESSION}/sockets/plasma_store") <= 107
    assert len(f"{folder}/ha/{NODE}/admin.sock") <= 97  # HAProxy makes it under a name that is ten bytes longer


def test_of_the_rays_before_only_the_newest_ones_files_stay(settings: Settings) -> None:
    folder = private_folder(settings)
    for age, name in enumerate(("b", "c", "a")):
        for left in (folder / "ray" / f"{SESSION}{name}", folder / "ha" / f"{NODE}{name}"):
            (left / "logs").mkdir(parents=True)
            os.utime(left, (age, age))
    latest = folder / "ray" / "session_latest"
    latest.symlink_to(folder / "ray" / f"{SESSION}a")
    clear(settings)
    assert set(folder.glob("*/*")) == {latest, latest.readlink(), folder / "ha" / f"{NODE}a"}
