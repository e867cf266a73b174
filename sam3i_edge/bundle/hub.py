"""Models from the Hugging Face Hub, as plain folders."""

from __future__ import annotations

import functools
import importlib
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

from sam3i_edge.errors import ArtifactError, UnknownModel
from sam3i_edge.user_cache import user_cache

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# Small files, of which every repository that is of use here has one.
_SMALL = ["bundle.json", "config.json", "LICENSE*"]

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")

_log = logging.getLogger(__name__)


def is_hub_id(name: str) -> bool:
    """Whether a name has the form "org/name"."""
    return bool(_HUB_ID.fullmatch(name))


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
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError

    try:
        commit = revision
        if revision is None or not _COMMIT.fullmatch(revision):
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
        folder = user_cache(kind) / f"{name.replace('/', '--')}@{commit}"
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
    except _failures(HfHubHTTPError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        proxies = sorted(key for key in os.environ if key.lower() in _PROXIES)
        check = f"; {', '.join(proxies)} sets a proxy: correct or unset it" if proxies else ""
        raise ArtifactError(
            f"there is no folder {name!r}, and the Hub did not give {wanted} of that name: {reason}{check}"
        ) from error
    return folder


def _failures(status: type[Exception]) -> tuple[type[Exception], ...]:
    """What asking the Hub raises where it cannot be reached, its HTTP client's own errors among them.

    That client, httpx or a descendant, lets through that a proxy refuses, is no URL, or wants a package.

    Args:
        status: the Hub's error of a status, which derives from the client's. Before the Hub's 1.0 that was
            requests, whose errors all are OSErrors.
    """
    own: type[Exception] = status.__bases__[0]
    client = importlib.import_module(own.__module__.partition(".")[0])
    return OSError, ValueError, ImportError, own, getattr(client, "InvalidURL", own)


@functools.cache
def _tell_commit(name: str, revision: str, commit: str) -> None:
    _log.warning(
        "%s: %r is commit %s today and may be another tomorrow: give the commit as the revision to keep it",
        name,
        revision,
        commit,
    )
