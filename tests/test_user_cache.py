"""Where things are kept, and that nobody else could have put them there."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from sam3i_edge import user_cache as module
from sam3i_edge.errors import RuntimeUnavailable
from sam3i_edge.user_cache import check_private, private_folder, user_cache


def test_a_folder_is_made_for_this_user_only(tmp_path):
    folder = private_folder(tmp_path / "a" / "engines")
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    assert private_folder(folder).stat().st_mode & 0o777 == 0o700, "one that others may read is closed"


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_others_may_write_is_refused(tmp_path, mode, what):
    folder = private_folder(tmp_path / "engines")
    (folder / "x.engine").write_bytes(b"x")
    path = folder if what == "folder" else folder / "x.engine"
    path.chmod(mode)
    with pytest.raises(RuntimeUnavailable, match=rf"{path} may be written by others \(mode {mode:o}\)"):
        check_private(folder)
    with pytest.raises(RuntimeUnavailable, match="run as code"):
        private_folder(folder)


def test_what_another_user_owns_is_refused(tmp_path, monkeypatch):
    folder = private_folder(tmp_path / "engines")
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    real = Path.stat

    def owned_by_1000(self):
        return SimpleNamespace(st_uid=1000, st_mode=real(self).st_mode)

    monkeypatch.setattr(Path, "stat", owned_by_1000)
    with pytest.raises(RuntimeUnavailable, match="belongs to the user id 1000"):
        check_private(folder)


@pytest.mark.parametrize("answer", ["raises", "~/.cache/sam3i-edge"])
def test_a_user_without_a_home_is_told_what_to_set(monkeypatch, answer):
    def user_cache_path(name):
        if answer == "raises":
            raise RuntimeError("could not determine the home directory")
        return Path(answer)

    monkeypatch.setattr(module.platformdirs, "user_cache_path", user_cache_path)
    with pytest.raises(RuntimeUnavailable, match=r"no home folder .* set XDG_CACHE_HOME"):
        user_cache("engines")
