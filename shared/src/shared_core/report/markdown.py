"""A report as Markdown, with links to its figures."""

from __future__ import annotations

import os
from pathlib import Path

from shared_core import figures
from shared_core.report import data
from shared_core.report.document import Block, Cell, Code, Document, Facts, Headline, Notes, Pictures, Table


def render(document: Document, folder: Path) -> str:
    """The report's text; pictures are linked relative to `folder`, where it will lie."""
    parts = [
        f"# {_escape(document.title)}",
        " · ".join(filter(None, [document.kind, document.subtitle, *(c.text for c in document.chips)])),
    ]
    if document.headline:
        parts.append(_headline(document.headline))
    for section in document.sections:
        parts.append(f"## {_escape(section.title)}")
        parts += [_block(block, folder) for block in section.blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def _headline(headline: Headline) -> str:
    estimate, label, detail = headline.estimate, _escape(headline.label), _escape(headline.detail)
    lines = [f"**{label}: {data.number(estimate)}** {data.interval(estimate)} ({detail})", ""]
    lines += [f"* {_escape(verdict.text)}" for verdict in headline.verdicts]
    rows = [
        [Cell(c.name), Cell(data.number(c.estimate)), Cell(data.interval(c.estimate)), Cell(c.what)]
        for c in headline.candidates
    ]
    return "\n".join(lines) + "\n\n" + _table(Table(["", "value", "95 % interval", "what it is"], rows), align="---")


def _block(block: Block, folder: Path) -> str:
    match block:
        case Table():
            return _table(block)
        case Facts():
            return _table(Table(["", ""], [[Cell(name), Cell(value)] for name, value in block.pairs]), align="---")
        case Pictures():
            return "\n\n".join(_picture(path, folder) for path in block.paths)
        case Code():
            fenced = f"```\n{block.text.strip()}\n```"
            return f"<details><summary>{block.summary}</summary>\n\n{fenced}\n\n</details>" if block.summary else fenced
        case Notes():
            return "\n".join(f"* {_escape(item.text)}" for item in block.items)


def _table(table: Table, align: str = "---:") -> str:
    rows = [[_cell(cell) for cell in row] for row in table.rows]
    lines = [[_escape(column) for column in table.columns], ["---"] + [align] * (len(table.columns) - 1), *rows]
    title = f"**{_escape(table.title)}**\n\n" if table.title else ""
    return title + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell) -> str:
    return "<br>".join(_escape(line) for line in (cell.text, *(remark.text for remark in cell.small)))


def _picture(path: Path, folder: Path) -> str:
    about = figures.describe(path)
    link = Path(os.path.relpath(path, folder)).as_posix().replace(" ", "%20")
    return f"![{_escape(about.title)}]({link})" + (f"\n\n*{_escape(about.caption)}*" if about.caption else "")


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
