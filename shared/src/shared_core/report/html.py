"""A report as one HTML file: no scripts, no network, pictures inside, light and dark, down to a phone's width."""

from __future__ import annotations

import base64
import math
from html import escape
from importlib import resources
from pathlib import Path

from shared_core import figures
from shared_core.report import data
from shared_core.report.document import (
    Block,
    Candidate,
    Cell,
    Code,
    Document,
    Facts,
    Headline,
    Notes,
    Pictures,
    Remark,
    Section,
    Table,
)

# Nothing outside this file may be loaded, whatever a run's name or notes contain.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def render(document: Document) -> str:
    """The whole page. Raises `UserError` for a picture that cannot be read."""
    style = (resources.files("shared_core") / "templates" / "report.css").read_text(encoding="utf-8")
    body = [_header(document)]
    if document.headline:
        body.append(_headline(document.headline))
    else:
        body.append('<div class="card hero"><p class="label">Not evaluated yet</p></div>')
    body += [_section(section) for section in document.sections]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(document.title)} - {escape(document.kind)}</title>
<style>
{style}</style>
</head>
<body>
<main>
{chr(10).join(body)}
</main>
</body>
</html>
"""


def _header(document: Document) -> str:
    chips = "".join(f'<span class="chip {chip.tone}">{escape(chip.text)}</span>' for chip in document.chips)
    subtitle = f'<p class="muted">{escape(document.subtitle)}</p>' if document.subtitle else ""
    kind, title = escape(document.kind), escape(document.title)
    return f'<header><p class="kind">{kind}</p><h1>{title} {chips}</h1>{subtitle}</header>'


def _headline(headline: Headline) -> str:
    estimate = headline.estimate
    interval = f'<span class="interval">{data.interval(estimate)}</span>' if data.interval(estimate) else ""
    verdicts = "".join(f'<li class="{verdict.tone}">{escape(verdict.text)}</li>' for verdict in headline.verdicts)
    return f"""<div class="card hero">
<div class="number">
<p class="label">{escape(headline.label)}</p>
<p class="value">{data.number(estimate)} {interval}</p>
<p class="muted">{escape(headline.detail)}</p>
<ul class="verdicts">{verdicts}</ul>
</div>
{_candidates(headline.candidates)}
</div>"""


def _candidates(candidates: list[Candidate]) -> str:
    """The run and its baselines on one axis: a dot for the value, a band for the interval."""
    shown = [c for c in candidates if not math.isnan(c.estimate.value)]
    if len(shown) < 2:
        return ""
    ends = [x for c in shown for x in (c.estimate.value, c.estimate.low, c.estimate.high) if not math.isnan(x)]
    span = (max(ends) - min(ends)) or 1.0
    low, high = min(ends) - 0.04 * span, max(ends) + 0.04 * span

    def percent(x: float) -> str:
        return f"{100 * (x - low) / (high - low):.2f}%"

    lines = []
    for c in shown:
        e, band = c.estimate, ""
        if not math.isnan(e.low):
            width = f"{100 * (e.high - e.low) / (high - low):.2f}%"
            band = f'<span class="band" style="left:{percent(e.low)};width:{width}"></span>'
        what = f'<span class="muted">{escape(c.what)}</span>' if c.what else ""
        lines.append(
            f'<li class="{"run" if c.is_run else "baseline"}"><div class="name"><span>{escape(c.name)}</span>'
            f"<b>{data.number(e)}</b></div>"
            f'<div class="track">{band}<span class="dot" style="left:{percent(e.value)}"></span></div>{what}</li>'
        )
    return f'<ul class="candidates">{"".join(lines)}</ul>'


def _section(section: Section) -> str:
    blocks = "\n".join(_block(block) for block in section.blocks)
    return f"<section><h2>{escape(section.title)}</h2>\n{blocks}</section>"


def _block(block: Block) -> str:
    match block:
        case Table():
            return _table(block)
        case Facts():
            pairs = "".join(f"<div><dt>{_key(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in block.pairs)
            return f'<dl class="facts">{pairs}</dl>'
        case Pictures():
            return f'<div class="figures">{"".join(_picture(path) for path in block.paths)}</div>'
        case Code():
            code = f"<pre><code>{escape(block.text.strip())}</code></pre>"
            return f"<details><summary>{escape(block.summary)}</summary>{code}</details>" if block.summary else code
        case Notes():
            return f'<ul class="notes">{"".join(_note(item) for item in block.items)}</ul>'


def _key(name: str) -> str:
    """A dotted key that may break where its parts meet."""
    return escape(name).replace(".", ".<wbr>").replace("_", "_<wbr>")


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    body = "".join(f"<tr>{''.join(_cell(cell, i) for i, cell in enumerate(row))}</tr>" for row in table.rows)
    caption = f"<caption>{escape(table.title)}</caption>" if table.title else ""
    size = ' class="narrow"' if len(table.columns) < 4 else ""
    content = f"{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table{size}>{content}</table></div>'


def _cell(cell: Cell, column: int) -> str:
    tag = "th" if column == 0 else "td"
    small = "".join(f'<small class="{remark.tone}">{escape(remark.text)}</small>' for remark in cell.small)
    return f"<{tag}>{escape(cell.text)}{small}</{tag}>"


def _picture(path: Path) -> str:
    about = figures.describe(path)
    source = base64.b64encode(path.read_bytes()).decode("ascii")
    kind = "chart" if about.is_chart else "photo"
    alt = escape(about.title, quote=True)
    caption = f"<figcaption>{escape(about.caption)}</figcaption>" if about.caption else ""
    image = f'<img class="{kind}" src="data:image/png;base64,{source}" width="{about.width}" height="{about.height}"'
    return f'<figure>{image} alt="{alt}">{caption}</figure>'


def _note(item: Remark) -> str:
    return f'<li class="{item.tone}">{escape(item.text)}</li>'
