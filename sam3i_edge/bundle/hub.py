"""Models from the Hugging Face Hub, as plain folders."""

from __future__ import annotations

import functools
import importlib
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from sam3i_edge.errors import ArtifactError, UnknownModel
from sam3i_edge.user_cache import user_cache

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILE = re.compile(rf"({_HUB_ID.pattern})/((?:[\w.-]+/)*[\w-][\w.-]*\.(?:pt|pth|bin|safetensors))")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# Small files, of which every repository that is of use here has one.
_SMALL = ["bundle.json", "config.json", "LICENSE*"]

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")

_PATIENCE = 10.0  # seconds until the Hub must say something; that of its client for a file

_log = logging.getLogger(__name__)


def is_hub_id(name: str) -> bool:
    """Whether a name has the form "org/name"."""
    return bool(_HUB_ID.fullmatch(name))


def split_file(name: str) -> tuple[str, str | None]:
    """A name as a Hub id and, where it is "org/name/path/of/file.pt", the path of a file in there."""
    found = _HUB_FILE.fullmatch(name)
    inside = found is not None and ".." not in name.split("/")
    return (found[1], found[2]) if found and inside else (name, None)


def fetch(
    name: str,
    kind: str,
    wanted: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    offline: bool = False,
    patterns: Sequence[str] | None = None,
) -> Path:
    """Downloads a repository at one commit, or finds what was downloaded before.

    A branch or a tag may mean another commit tomorrow: which one it is now is logged as a warning, once.
    Where the Hub is silent, what was fetched before is found.

    Args:
        name: "org/name".
        kind: folder of the cache that it goes to.
        wanted: what the repository should hold, for messages.
        revision: branch, tag or commit, of 40 hexadecimal digits; None for the branch "main".
        token: of the Hub; None uses the one that 'hf auth login' stored.
        offline: use only what was fetched before.
        patterns: files to fetch; None for all.

    Returns:
        A folder in the user's cache, of plain files. Its name ends in "@" and the commit.

    Raises:
        UnknownModel: the name is none that the Hub allows.
        ArtifactError: the repository is gated or missing, or the Hub cannot be reached, through a proxy that
            is none, say.
    """
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, HFValidationError

    answers = True
    try:
        commit, folders = revision, user_cache(kind)
        named = revision is None or not _COMMIT.fullmatch(revision)
        if not offline and (named or not _folder(folders, name, revision).is_dir()):
            answers = _answers(name, revision, token)
            offline = not answers
        if named:
            # The Hub's own cache keeps which commit a name meant, for use offline too: a folder's name.
            commit = Path(
                huggingface_hub.snapshot_download(
                    name,
                    revision=revision,
                    token=token,
                    local_files_only=offline,
                    allow_patterns=_SMALL,
                )
            ).name
            _tell_commit(name, revision or "main", commit)
        # A copy, not the Hub's own cache: there each file is a link to a blob outside the folder.
        folder = _folder(folders, name, commit)
        huggingface_hub.snapshot_download(
            name,
            revision=commit,
            token=token,
            local_dir=folder,
            local_files_only=offline,
            allow_patterns=None if patterns is None else list(patterns),
        )
    except HFValidationError as error:
        raise UnknownModel(f"unknown model {name!r}: no such folder, and not a Hub id: {error}") from error
    except GatedRepoError as error:
        raise ArtifactError(
            f"the Hub's {name!r} is gated: accept its terms on its page there, then run 'hf auth login' or "
            "give a token"
        ) from error
    except _failures() as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if not answers:
            reason = f"no answer within {_PATIENCE:.0f} s, and nothing was fetched before"
        proxies = sorted(key for key in os.environ if key.lower() in _PROXIES)
        check = f"; {', '.join(proxies)} sets a proxy: correct or unset it" if proxies else ""
        raise ArtifactError(
            f"there is no folder {name!r}, and the Hub did not give {wanted} of that name: {reason}{check}"
        ) from error
    return folder


def _folder(folders: Path, name: str, commit: str | None) -> Path:
    return folders / f"{name.replace('/', '--')}@{commit}"


def _answers(name: str, revision: str | None, token: str | None) -> bool:
    """Whether the Hub, or a proxy before it, says anything in time: its client would wait for ever."""
    import huggingface_hub

    try:
        huggingface_hub.model_info(name, revision=revision, token=token, timeout=_PATIENCE)
    except _failures() as error:  # all but silence is met again below, where it gets its words
        client = _http_client()
        return not isinstance(error, (client.Timeout, getattr(client, "TimeoutException", client.Timeout)))
    return True


def _failures() -> tuple[type[Exception], ...]:
    """What asking the Hub raises where it cannot be reached.

    Errors of its HTTP client come through where a proxy refuses, is no URL, or wants a package.
    """
    client = _http_client()
    return OSError, ValueError, ImportError, client.HTTPError, getattr(client, "InvalidURL", OSError)


def _http_client() -> ModuleType:
    """The package that the Hub's asks with: httpx or a descendant, before its 1.0 requests."""
    from huggingface_hub.errors import HfHubHTTPError

    return importlib.import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])


@functools.cache
def _tell_commit(name: str, revision: str, commit: str) -> None:
    _log.warning(
        "%s: %r is commit %s today and may be another tomorrow: give the commit as the revision to keep it",
        name,
        revision,
        commit,
    )
