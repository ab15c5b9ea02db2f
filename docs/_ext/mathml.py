"""Render formulas as MathML, which browsers show without a script or the network."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def inline(self: Any, node: nodes.math) -> None:
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def display(self: Any, node: nodes.math_block) -> None:
    text = node.astext().strip()
    if "\\\\" in text or "&" in text:
        text = f"\\begin{{align*}}{text}\\end{{align*}}"
    identifier = f' id="{node["ids"][0]}"' if node["ids"] else ""
    number = f'<span class="eqno">({node["number"]})</span>' if node.get("number") else ""
    formula = convert(text, display="block")
    self.body.append(f'<div class="math-display"{identifier}>{number}{formula}</div>\n')
    raise nodes.SkipNode
