"""A report of headings, paragraphs, tables and pictures, as Markdown or as one HTML file."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #22262b; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #d9dde2; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .9rem; display: block;
  overflow-x: auto; }
caption { text-align: left; color: #5a626b; padding-bottom: .3rem; }
th, td { padding: .2rem .7rem .2rem 0; text-align: left; vertical-align: top; }
th { border-bottom: 1px solid #8a929b; } td.number, th.number { text-align: right; }
figure { margin: 1.5rem 0; } img { max-width: 100%; height: auto; }
figcaption { color: #5a626b; font-size: .9rem; }
"""


@dataclass(frozen=True)
class Heading:
    """A heading of a section."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of plain texts."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Rows of cells; a column whose cells are all numbers or dashes is aligned to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A picture in the folder of the report."""

    name: str
    caption: str

    @property
    def title(self) -> str:
        """The first sentence of the caption, for those who cannot see the picture."""
        return self.caption.partition(". ")[0].removesuffix(".")


Block = Heading | Paragraph | Bullets | Table | Picture


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
    """Return a report as Markdown; pictures are files beside it."""
    parts = [f"# {title}"]
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"## {block.text}")
        elif isinstance(block, Paragraph):
            parts.append(block.text)
        elif isinstance(block, Bullets):
            parts.append("\n".join(f"- {item}" for item in block.items))
        elif isinstance(block, Picture):
            parts.append(f"![{block.title}]({block.name})\n\n{block.caption}")
        else:
            align = ["--:" if right else "---" for right in _numeric(block)]
            lines = [block.columns, align, *block.rows]
            parts.append("\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines))
    return "\n\n".join(parts) + "\n"


def to_html(title: str, blocks: Sequence[Block], folder: Path) -> str:
    """Return a report as HTML that needs no other file: pictures of `folder` are inside."""
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"<h2>{html.escape(block.text)}</h2>")
        elif isinstance(block, Paragraph):
            parts.append(f"<p>{html.escape(block.text)}</p>")
        elif isinstance(block, Bullets):
            items = "".join(f"<li>{html.escape(item)}</li>" for item in block.items)
            parts.append(f"<ul>{items}</ul>")
        elif isinstance(block, Picture):
            data = base64.b64encode((folder / block.name).read_bytes()).decode()
            parts.append(
                f'<figure><img alt="{html.escape(block.title)}" width="640" '
                f'src="data:image/png;base64,{data}">'
                f"<figcaption>{html.escape(block.caption)}</figcaption></figure>"
            )
        else:
            parts.append(_html_table(block))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _html_table(table: Table) -> str:
    style = [' class="number"' if right else "" for right in _numeric(table)]

    def row(cells: Sequence[str], tag: str) -> str:
        inside = "".join(
            f"<{tag}{kind}>{html.escape(cell)}</{tag}>"
            for cell, kind in zip(cells, style, strict=True)
        )
        return f"<tr>{inside}</tr>"

    head, body = row(table.columns, "th"), "\n".join(row(cells, "td") for cells in table.rows)
    return f"<table><thead>{head}</thead><tbody>\n{body}\n</tbody></table>"


def _numeric(table: Table) -> list[bool]:
    """Return which columns hold nothing but numbers."""
    return [
        bool(table.rows) and all(_is_number(row[place]) for row in table.rows)
        for place in range(len(table.columns))
    ]


def _is_number(cell: str) -> bool:
    return bool(cell) and all(letter in "0123456789.,-–<+% " for letter in cell)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
