"""Executed notebooks as HTML: formulas are MathML, nothing is fetched."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from msa_lib.study import NOTEBOOKS, html_page


def page(folder, *cells) -> str:
    nbformat.write(new_notebook(cells=list(cells)), folder / "n.ipynb")
    return html_page.body_of(folder / "n.ipynb")


def test_formulas_become_mathml_in_the_line_and_on_their_own(tmp_path):
    body = page(tmp_path, new_markdown_cell(r"with $\alpha_m < 1$," + "\n\n" + r"$$u = \sum_i c_i v_i \quad (9)$$"))
    assert re.findall(r'<math [^>]*display="(\w+)"', body) == ["inline", "block"]
    assert "α" in body
    assert "<mo>&lt;</mo>" in body
    assert "$" not in body


def test_code_and_prices_stay_as_they_are(tmp_path):
    body = page(tmp_path, new_markdown_cell("`$HOME and $PATH`; it costs 5 $."), new_code_cell("x = '$a$'"))
    assert "<math" not in body
    assert "$HOME and $PATH" in body


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_formula_of_the_notebooks_is_read_whole(path):
    body = html_page.body_of(path)
    assert not [formula for formula in re.findall(r"<math.*?</math>", body, re.DOTALL) if "\\" in formula]
    text = "".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")
    assert len(re.findall("<math", body)) >= text.count("$$") // 2
    assert "http://" not in body
