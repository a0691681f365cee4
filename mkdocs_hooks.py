"""Hooks of mkdocs: documents of the root are pages too, and links lead to pages or become text."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent
DOCS = ROOT / "docs"
PAGES = {
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "README.md": "index.md",
}
"""Documents in the root, and where they are in the site. The first page stands for README."""
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the documents of the root."""
    for name, page in PAGES.items():
        if name != "README.md":
            content = (ROOT / name).read_text(encoding="utf-8")
            files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Make links fit the site, with titles for file names; of those to sources keep the text."""
    name = {value: key for key, value in PAGES.items()}.get(page.file.src_uri)
    folder = ROOT if name and name != "README.md" else DOCS

    def changed(link: re.Match[str]) -> str:
        text, target = link.groups()
        if re.match(r"[a-z]+:|#", target):
            return link[0]
        place, _, anchor = target.partition("#")
        path = Path(os.path.normpath(folder / place))
        if path.is_dir():
            return text
        if path.is_relative_to(DOCS):
            there = str(path.relative_to(DOCS))
        elif (there := PAGES.get(path.name, "")) == "" or path.parent != ROOT:
            return text
        if text == path.name and path.suffix == ".md":
            text = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        return f"[{text}]({there}{'#' + anchor if anchor else ''})"

    return LINK.sub(changed, markdown)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Remove the roles of reStructuredText, which docstrings name other objects with, and of a
    name with a tilde all but the last part. Warn of a list that is text of a paragraph."""
    for paragraph in re.findall(r"<p>(.*?)</p>", html, re.DOTALL):
        if item := re.search(r"\n((?:\d+\.|[-*]) .*)", paragraph):
            logging.getLogger("mkdocs.hooks").warning(
                "%s: no blank line before the list at %r", page.file.src_uri, item[1][:60]
            )
    html = re.sub(r":(?:attr|class|data|func|meth|mod):(?=<code>)", "", html)
    return re.sub(r"<code>~[\w.]+\.(\w+)</code>", r"<code>\1</code>", html)
