"""MkDocs hook: pages made from what is there, and a check that no page asks another host for anything.

`index.md` is README.md, `changelog.md` and `contributing.md` are the files of the root, `cli.md` is what the
commands say of themselves, and `adr/index.md` lists the decisions.
"""

from __future__ import annotations

import re
from pathlib import Path

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.cli import get_docs_for_click

from sam3i_edge.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
# Root file -> its page. Links between them and into docs/ are rewritten to match.
FROM_ROOT = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
_FETCHED = re.compile(
    r'<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href|srcset)=["\']?(?:https?:)?//[^"\'>\s]+'
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made."""
    pages = {page: _from_root(name) for name, page in FROM_ROOT.items()}
    pages["cli.md"] = _commands()
    pages["adr/index.md"] = _decisions()
    for uri, text in pages.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuses a page that a browser would complete from another host."""
    found = _FETCHED.search(output)
    if found:
        raise PluginError(f"{page.file.src_uri} fetches from another host: {found.group()}")
    return output


def _from_root(name: str) -> str:
    text = (
        (ROOT / name)
        .read_text(encoding="utf-8")
        .replace("](docs/adr)", "](adr/index.md)")
        .replace("](docs/", "](")
    )
    for other, page in FROM_ROOT.items():
        text = text.replace(f"]({other})", f"]({page})")
    return text


def _commands() -> str:
    command = typer.main.get_command(app)
    with typer.Context(command, info_name="sam3i-edge") as context:
        return get_docs_for_click(obj=command, ctx=context, name="sam3i-edge", title="Commands")


def _decisions() -> str:
    lines = [
        "# Decisions",
        "",
        "Choices that were hard, each on one page: context, options, decision, consequences.",
        "",
    ]
    for path in sorted((ROOT / "docs" / "adr").glob("[0-9]*.md")):
        title = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        lines.append(f"- [{title}]({path.name})")
    return "\n".join(lines) + "\n"
