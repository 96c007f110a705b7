"""An executed notebook as one self-contained HTML page: figures inside, formulas as MathML, nothing fetched."""

from __future__ import annotations

from pathlib import Path

import jinja2
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath


class _Renderer(IPythonRenderer):
    def inline_math(self, body: str) -> str:
        return convert(body, xmlns="")  # HTML needs no name space, whose address would look like something fetched

    def block_math(self, body: str) -> str:
        return convert(body, xmlns="", display="block")


class _Exporter(HTMLExporter):
    """nbconvert's, which leaves formulas to a script that a page would have to fetch; browsers read MathML themselves.

    Our Markdown cells attach no pictures and link to no files.
    """

    @jinja2.pass_context
    def markdown2html(self, context: jinja2.runtime.Context, source: str) -> str:
        renderer = _Renderer(escape=False, exclude_anchor_links=self.exclude_anchor_links)
        return MarkdownWithMath(renderer=renderer).render(source)


def body_of(notebook: Path) -> str:
    """The cells of an executed notebook as HTML, without a page around them."""
    exporter = _Exporter(
        template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True, exclude_anchor_links=True
    )
    return exporter.from_filename(str(notebook))[0]
