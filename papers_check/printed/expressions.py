"""A small language over the printed cells, in which the sentences of the papers are written down as data.

An expression is read with `ast` and walked here, node by node; whatever is not listed below is refused, and nothing is
ever evaluated as Python. Numbers are exact decimals made from the printed strings.

    cell(2, mosi, Our, acc7) - best(2, mosi, acc7, skip=Our)          a number: the stated gain
    beats(6, mosei, Our, others)                                      a truth: better in every column both print
    lower(3, mosi, "w/o Visual", corr) or 1.5 * 2 >= 3                truths combine with and, or, not

Table, data set, row and metric come in the order in which `reported/*.csv` has them; a metric with a slash cell is
written `acc2_has0` (left) or `acc2_non0` (right). Names with other characters than letters stand in quotes.
"""

import ast
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

import pandas as pd

from papers_check.printed.papers import NAMES
from papers_check.printed.rows import METRICS, column

LOWER_IS_BETTER = ("mae",)
OTHERS = "others"  # in place of a row: every other row of that table and data set
ARITHMETIC = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
COMPARE = {
    ast.Gt: operator.gt,
    ast.Lt: operator.lt,
    ast.GtE: operator.ge,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
SIGNS = {ast.Gt: "above", ast.Lt: "below", ast.GtE: "at least", ast.LtE: "at most", ast.Eq: "equal to"}
SIGNS |= {ast.NotEq: "other than"}
SYMBOLS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


class ExpressionError(ValueError):
    """The expression is not in the language, or asks for a cell that is not there."""


@dataclass
class Evaluation:
    """What an expression came to, and what to tell a reader: `notes` names comparisons made and rows that fail.

    `shown` is a number as plain arithmetic over the cells, "80.54 - 78.62"; of a truth it is empty.
    """

    value: Decimal | bool
    notes: list[str] = field(default_factory=list)
    shown: str = ""


class Cells:
    """The printed numbers of one paper as exact decimals, looked up by table, data set, row and metric."""

    def __init__(self, reported: pd.DataFrame) -> None:
        self.rows: dict[tuple[str, str], list[str]] = {}
        self.metrics: dict[tuple[str, str], list[str]] = {}
        self.values: dict[tuple[str, str, str, str], Decimal | None] = {}
        columns = reported[["table", "dataset", "row", "metric", "side", "value"]]
        for table, dataset, row, metric, side, text in columns.itertuples(index=False, name=None):
            name = f"{metric}_{side}" if side else metric
            for seen, new in ((self.rows, row), (self.metrics, name)):
                known = seen.setdefault((table, dataset), [])
                if new not in known:
                    known.append(new)
            # "2,199" is how the papers print thousands.
            self.values[table, dataset, row, name] = Decimal(text.replace(",", "")) if text else None

    def place(self, table: str, dataset: str) -> tuple[str, str]:
        if (table, dataset) not in self.rows:
            known = ", ".join(sorted(f"{t} {d}" for t, d in self.rows))
            raise ExpressionError(f"no table {table} {dataset}: expected one of {known}")
        return table, dataset

    def metric(self, table: str, dataset: str, metric: str) -> str:
        known = self.metrics[self.place(table, dataset)]
        if metric not in known:
            raise ExpressionError(
                f"table {table} {dataset} has no column {metric!r}: expected one of {', '.join(known)}"
            )
        return metric

    def row(self, table: str, dataset: str, row: str) -> str:
        known = self.rows[self.place(table, dataset)]
        if row not in known:
            raise ExpressionError(f"table {table} {dataset} has no row {row!r}: expected one of {', '.join(known)}")
        return row

    def cell(self, table: str, dataset: str, row: str, metric: str) -> Decimal:
        """The printed number; ExpressionError for a dash."""
        value = self.values[table, dataset, self.row(table, dataset, row), self.metric(table, dataset, metric)]
        if value is None:
            raise ExpressionError(f"table {table} {dataset} prints a dash for {row} {metric}")
        return value

    def column(self, table: str, dataset: str, metric: str, rows: Sequence[str]) -> dict[str, Decimal]:
        """Row -> printed number, dashes left out."""
        self.metric(table, dataset, metric)
        found = {row: self.values[table, dataset, self.row(table, dataset, row), metric] for row in rows}
        return {row: value for row, value in found.items() if value is not None}


def is_better(metric: str, ours: Decimal, theirs: Decimal) -> bool:
    """Strictly better under the direction of the column: lower for MAE, higher for the rest."""
    return ours < theirs if metric in LOWER_IS_BETTER else ours > theirs


def evaluate(expression: str, reported: pd.DataFrame) -> Evaluation:
    """The value of `expression` over the printed cells of one paper, `load_reported(paper)`.

    Raises ExpressionError for anything outside the language, an unknown name, or a dash where a number is needed.
    """
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"{expression!r} cannot be read: {getattr(error, 'msg', error)}") from None
    walker = _Walker(expression.strip(), Cells(reported))
    try:
        value = walker.visit(tree.body)
    except RecursionError:
        raise ExpressionError("the expression is nested too deeply") from None
    if not isinstance(value, Decimal | bool):
        raise ExpressionError(f"{expression!r} gives {value!r}: expected a number or a truth")
    notes = list(walker.notes)
    return Evaluation(value, notes, walker.arithmetic_text(tree.body) if isinstance(value, Decimal) else "")


class _Walker:
    def __init__(self, source: str, cells: Cells) -> None:
        self.source = source
        self.cells = cells
        self.notes: list[str] = []
        self.functions: dict[str, Callable] = {
            "cell": cells.cell,
            "best": self.best,
            "printed": self.printed,
            "beats": self.beats,
            "higher": lambda t, d, row, metric, than: self.ordered(t, d, row, metric, than, operator.gt, "above"),
            "lower": lambda t, d, row, metric, than: self.ordered(t, d, row, metric, than, operator.lt, "below"),
            "has_table": lambda t, d: self.present((t, d) in cells.rows, f"Table {t} is {{}}on {_set(d)}", "not "),
            "has_row": self.has_row,
            "has_column": self.has_column,
            "count_rows": lambda t, d: Decimal(len(cells.rows[cells.place(t, d)])),
        }

    # --- the nodes that are allowed -------------------------------------------------------------------------------

    def visit(self, node: ast.expr) -> object:
        """The value of one node: Decimal, bool, a name (str) or a list of names (tuple)."""
        match node:
            case ast.Constant(value=str(text)):
                return text
            case ast.Constant(value=bool()):
                raise ExpressionError(f"{self.source!r} holds a bare truth value: expected cells, numbers or names")
            case ast.Constant(value=int() | float()):
                return self.number(node)
            case ast.Name(id=name):
                return name
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                return tuple(self.visit(part) for part in parts)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self.decimal(operand)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not self.truth(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                return self.arithmetic(type(op), self.decimal(left), self.decimal(right))
            case ast.BoolOp(op=op, values=parts):
                # All parts are evaluated, so that every failing row is noted and no mistake hides behind a short cut.
                truths = [self.truth(part) for part in parts]
                return all(truths) if isinstance(op, ast.And) else any(truths)
            case ast.Compare(left=left, ops=ops, comparators=rights):
                return self.compare(left, ops, rights)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords):
                return self.call(name, arguments, keywords)
        raise ExpressionError(f"{self.source!r} uses {type(node).__name__}, which the language does not have")

    def number(self, node: ast.Constant) -> Decimal:
        text = ast.get_source_segment(self.source, node) or ""
        try:
            return Decimal(text)
        except InvalidOperation:
            raise ExpressionError(f"{text!r} is not a plain decimal number") from None

    def decimal(self, node: ast.expr) -> Decimal:
        value = self.visit(node)
        if not isinstance(value, Decimal):
            raise ExpressionError(f"{ast.unparse(node)} is not a number")
        return value

    def truth(self, node: ast.expr) -> bool:
        value = self.visit(node)
        if not isinstance(value, bool):
            raise ExpressionError(f"{ast.unparse(node)} is neither true nor false")
        return value

    def arithmetic(self, kind: type, left: Decimal, right: Decimal) -> Decimal:
        if kind is ast.Div and right == 0:
            raise ExpressionError(f"{self.source!r} divides by zero")
        return ARITHMETIC[kind](left, right)

    def arithmetic_text(self, node: ast.expr) -> str:
        """A number as it would be written down: every cell as its value."""
        if isinstance(node, ast.BinOp):
            left, right = self.arithmetic_text(node.left), self.arithmetic_text(node.right)
            if isinstance(node.right, ast.BinOp):
                right = f"({right})"
            return f"{left} {SYMBOLS[type(node.op)]} {right}"
        return _text(self.decimal(node))

    def compare(self, left: ast.expr, ops: list[ast.cmpop], rights: list[ast.expr]) -> bool:
        values = [self.decimal(node) for node in (left, *rights)]
        results = []
        for op, first, second in zip(ops, values, values[1:], strict=False):
            if type(op) not in COMPARE:
                raise ExpressionError(f"{self.source!r} uses {type(op).__name__}, which the language does not have")
            results.append(COMPARE[type(op)](first, second))
            truth = "is" if results[-1] else "is not"
            self.notes.append(f"{_text(first)} {truth} {SIGNS[type(op)]} {_text(second)}")
        return all(results)

    def call(self, name: str, arguments: list[ast.expr], keywords: list[ast.keyword]) -> object:
        if name not in self.functions:
            raise ExpressionError(f"no function {name!r}: expected one of {', '.join(self.functions)}")
        positional = [_plain(self.visit(argument)) for argument in arguments]
        named = {keyword.arg: _plain(self.visit(keyword.value)) for keyword in keywords}
        try:
            return self.functions[name](*positional, **named)
        except TypeError:
            shown = ast.unparse(ast.Call(ast.Name(name), arguments, keywords))
            raise ExpressionError(f"{shown} has too few, too many or unknown arguments") from None

    # --- the functions --------------------------------------------------------------------------------------------

    def best(self, table: str, dataset: str, metric: str, skip: object = (), among: object = ()) -> Decimal:
        """The best printed number of a column; `skip` leaves rows out, `among` keeps only these."""
        place = self.cells.place(table, dataset)
        rows = [self.cells.row(table, dataset, row) for row in _names(among)] or self.cells.rows[place]
        left_out = [self.cells.row(table, dataset, row) for row in _names(skip)]
        column = self.cells.column(table, dataset, metric, [row for row in rows if row not in left_out])
        if not column:
            raise ExpressionError(f"table {table} {dataset} prints no {metric} in these rows")
        choose = min if metric in LOWER_IS_BETTER else max
        row = choose(column, key=column.get)
        self.notes.append(f"best {_column(metric)} is {_text(column[row])} ({row})")
        return column[row]

    def printed(self, table: str, dataset: str, metric: str, skip: object = ()) -> Decimal:
        """How many rows print a number in this column."""
        rows = [row for row in self.cells.rows[self.cells.place(table, dataset)] if row not in _names(skip)]
        return Decimal(len(self.cells.column(table, dataset, metric, rows)))

    def beats(self, table: str, dataset: str, rows: object, others: object, metrics: object = ()) -> bool:
        """Each of `rows` strictly better than each of `others` in every column that both print."""
        place = self.cells.place(table, dataset)
        rows, others = _names(rows), _names(others)
        if others == (OTHERS,):
            others = tuple(row for row in self.cells.rows[place] if row not in rows)
        columns = [self.cells.metric(table, dataset, metric) for metric in _names(metrics)] or self.cells.metrics[place]
        compared, failed = 0, []
        for metric in columns:
            ours = self.cells.column(table, dataset, metric, rows)
            theirs = self.cells.column(table, dataset, metric, others)
            for row, mine in ours.items():
                for other, his in theirs.items():
                    compared += 1
                    if not is_better(metric, mine, his):
                        failed.append(f"{_column(metric)}: {row} {_text(mine)}, {other} {_text(his)}")
        if not compared:
            raise ExpressionError(f"{self.source!r} compares nothing: both rows print no common column")
        self.notes.append(f"{compared - len(failed)} of {compared} comparisons hold")
        self.notes += failed
        return not failed

    def ordered(self, table, dataset, row, metric, than, relation: Callable, word: str) -> bool:
        mine = self.cells.cell(table, dataset, row, metric)
        results = []
        for other in _names(than):
            his = self.cells.cell(table, dataset, other, metric)
            results.append(relation(mine, his))
            truth = "is" if results[-1] else "is not"
            self.notes.append(f"{_column(metric)}: {row} {_text(mine)} {truth} {word} {other} {_text(his)}")
        return all(results)

    def has_row(self, table: str, dataset: str, row: str) -> bool:
        present = row in self.cells.rows[self.cells.place(table, dataset)]
        return self.present(present, f"Table {table} ({_set(dataset)}) has {{}}row {row}")

    def has_column(self, table: str, dataset: str, metric: str) -> bool:
        present = metric in self.cells.metrics[self.cells.place(table, dataset)]
        return self.present(present, f"Table {table} ({_set(dataset)}) has {{}}column {_column(metric)}")

    def present(self, found: bool, words: str, denial: str = "no ") -> bool:
        self.notes.append(words.format("" if found else denial))
        return found


def _plain(value: object) -> object:
    """Table numbers are names; other arguments already are."""
    return str(value) if isinstance(value, Decimal) else value


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, tuple) and all(isinstance(name, str) for name in value):
        return value
    raise ExpressionError(f"{value!r} is not a row or a list of rows")


def _text(value: Decimal) -> str:
    return format(value, "f")


def _column(name: str) -> str:
    """A column for people: acc2_has0 is "Acc-2 (left)"; what is no score keeps its name."""
    metric, _, side = name.partition("_")
    return column(metric, side) if metric in METRICS else name


def _set(dataset: str) -> str:
    return NAMES.get(dataset, dataset)
