"""The one page: what stands on it, that it is sound HTML which anyone can read, and that it runs in a browser."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from papers_check import load_reported
from papers_check.checks import audit, claims
from papers_check.checks.finding import Finding
from papers_check.judge import verdicts
from papers_check.judge.judged_tables import NO_RUNS, Data, TablePage, assemble, pages_from, verdict_counts
from papers_check.printed.rows import column
from papers_check.show import report

HOSTILE = """"><script>alert(1)</script>'</details><img src=x onerror=y>&amp;{{ 7 * 7 }}"""
SEEDS = range(1111, 1116)
COMMAND = {"Command": "msa check --store runs"}
READINGS = {"routing removed": "no_routing", "fusion replaced": "no_usf"}
LABELS = {"DSRF (Full)": "full", "w/o SFR": READINGS, "w/o DRI": {"reconstruction loss removed": "no_rec_loss"}}


def finding(**changes):
    values = {
        "id": "dsrf-claim-example",
        "kind": "claim",
        "paper": "dsrf",
        "where": "Table 3, CMU-MOSI",
        "quote": "a drop in all settings",
        "computed": "18 of 21 comparisons hold",
        "verdict": "three numbers are higher",
        "explanation": "Three of the numbers are better without it.",
        "check": "claim",
        "title": "Not in all settings",
        "innocent_reading": "Noise between runs.",
        "survives": "yes",
        "needs": "paper",
        "touches": "conclusion",
        "group": "numbers",
    }
    return Finding(**values | changes)


def rows_like(paper, table, dataset, data, labels=None, synthetic=True, seeds=SEEDS, shift=0.0):
    """Result rows that scatter around what is printed, for every printed row."""
    generator, lines = np.random.default_rng(7), []
    cells = load_reported(paper, table)
    for cell in cells[(cells["dataset"] == dataset) & (cells["value"] != "")].to_dict("records"):
        percent = cell["metric"].startswith(("acc", "f1"))
        metric = "_".join(filter(None, (cell["metric"], cell["side"])))
        names = (labels or {}).get(cell["row"], cell["row"])
        for label in [names] if isinstance(names, str) else names.values():
            for seed in seeds:
                value = float(cell["value"]) / (100 if percent else 1) + 0.004 * (generator.standard_normal() + shift)
                lines.append((label, seed, "test", metric, min(value, 1.0) if percent else value))
    rows = pd.DataFrame(lines, columns=["label", "seed", "split", "metric", "value"])
    return rows.assign(status="done", synthetic=synthetic, selection="val_mae", dataset=data, reason="")


def planted(name="planted-mosi?train=400&valid=200&test=400"):
    rows = rows_like("dsrf", 3, "mosi", name, LABELS)
    control = rows[rows["label"] == "full"].assign(label="wide vector")
    return TablePage("dsrf", 3, {"mosi": Data(name, True, 400)}, pd.concat([rows, control]), LABELS)


def real(shift=0.0):
    data = {"mosi": Data("mosi", False, 686), "mosei": Data("mosei", False, 4659)}
    rows = [rows_like("dsrf", 1, name, name, synthetic=False, shift=shift) for name in data]
    return TablePage("dsrf", 1, data, pd.concat(rows))


# --- a checker of pages ---------------------------------------------------------------------------------------------

VOID = {"meta", "link", "br", "img", "input", "hr"}
LABELLED = {"select", "input", "textarea"}


class Page(HTMLParser):
    """The elements of a page in order, each with tag, attributes, text, parents and what is within; `problems`."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.problems = [], [], []
        self.feed(text)
        self.close()
        self.problems += [f"<{element['tag']}> is not closed" for element in self.open]
        if not text.startswith("<!doctype html>"):
            self.problems.append("no doctype")

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        if len(names) > len(set(names)):
            self.problems.append(f"<{tag}> has an attribute twice")
        element = {"tag": tag, "text": "", "inside": list(self.open), "within": [], **dict(attributes)}
        self.elements.append(element)
        for parent in self.open:
            parent["within"].append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop()["tag"] != tag:
            self.problems.append(f"</{tag}> closes something else")

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, *tags, **attributes):
        return [
            element
            for element in self.elements
            if (not tags or element["tag"] in tags)
            and all(element.get(name.replace("_", "-")) == value for name, value in attributes.items())
        ]


def problems(text: str) -> list[str]:
    """What keeps a page from being sound, self-contained and accessible, one sentence each."""
    page = Page(text)
    found = list(page.problems)
    for tag in ("html", "title", "h1", "header", "nav", "main"):
        if len(page.all(tag)) != 1:
            found.append(f"{len(page.all(tag))} <{tag}>")
    found += [f"<{tag}> is empty" for tag in ("title", "h1") if not any(e["text"].strip() for e in page.all(tag))]
    if not all(element.get("lang") for element in page.all("html")):
        found.append("no lang")
    levels = [int(element["tag"][1]) for element in page.all("h1", "h2", "h3", "h4", "h5", "h6")]
    found += [f"h{b} follows h{a}" for a, b in zip([0, *levels], levels, strict=False) if b > a + 1]

    ids = [element["id"] for element in page.elements if "id" in element]
    found += [f"id {name} occurs twice" for name in {name for name in ids if ids.count(name) > 1}]
    for element in page.elements:
        refers = [element["href"][1:]] if element.get("href", "").startswith("#") else []
        refers += [*element.get("aria-labelledby", "").split(), *element.get("for", "").split()]
        found += [f"<{element['tag']}> refers to {name}, which is not there" for name in refers if name not in ids]
        for name, value in element.items():
            if name.startswith("on"):
                found.append(f"<{element['tag']}> has {name}")
            outside = name in ("src", "href") and not value.startswith(("#", "data:"))
            if outside or (name == "style" and "url" in value):
                found.append(f"<{element['tag']}> fetches {value}")
    for table in page.all("table"):
        inside = table["within"]
        if not any(element["tag"] == "caption" and element["text"].strip() for element in inside):
            found.append("a table has no caption")
        heads = [element for element in inside if element["tag"] == "th"]
        if not heads or any(head.get("scope") not in ("row", "col", "rowgroup", "colgroup") for head in heads):
            found.append("a table has a header without scope")
        rows = [element["within"] for element in inside if element["tag"] == "tr"]
        widths = {sum(int(cell.get("colspan", 1)) for cell in row if cell["tag"] in ("td", "th")) for row in rows}
        if len(widths) > 1:
            found.append(f"rows of a table are {sorted(widths)} cells wide")
    named = {name for label in page.all("label") if label["text"].strip() for name in label.get("for", "").split()}
    for control in page.all(*LABELLED):
        if control.get("id") not in named and not control.get("aria-label"):
            found.append(f"<{control['tag']}> has no label")
    found += ["a button has no text" for button in page.all("button") if not button["text"].strip()]
    found += ["an image has no alt text" for image in page.all("img", "svg") if not image.get("alt")]
    for element in page.all("nav", "form", "section"):
        if not element.get("aria-label") and not element.get("aria-labelledby"):
            found.append(f"<{element['tag']}> has no name")
    for element in page.elements:
        if "tabindex" in element and not (element.get("role") and element.get("aria-label")):
            found.append("something takes the focus and has no name")
    for part in page.all("details"):
        first = part["within"][:1]
        if not first or first[0]["tag"] != "summary" or not first[0]["text"].strip():
            found.append("details do not begin with a summary")
    words = [element for element in page.elements if "word" in element.get("class", "").split()]
    found += ["a coloured word has no text" for word in words if not word["text"].strip()]
    return found + contrasts("".join(element["text"] for element in page.all("style")))


def contrasts(css: str) -> list[str]:
    """Rules of a style sheet whose text is too faint; a rule that sets a colour must set what is behind it, too."""
    names, found = dict(re.findall(r"(--[\w-]+):\s*(#[0-9a-f]{6})", css)), []
    if re.search(r"@import|url\(", css):
        found.append("the style sheet fetches something")
    if "prefers-reduced-motion" not in css and re.search(r"animation|transition", css):
        found.append("something moves")
    if re.search(r"outline:\s*(none|0)", css) or ":focus-visible" not in css:
        found.append("the focus is not visible")
    for selector, body in re.findall(r"([^{}]+)\{([^{}]*)\}", css):
        declared = dict(re.findall(r"(?:^|;)\s*(color|background|outline)\s*:\s*([^;]+)", body))
        colours = {name: _colour(value, names) for name, value in declared.items() if re.search(r"#|var", value)}
        if "outline" in colours and _contrast(colours["outline"], _colour("var(--page)", names)) < 3:
            found.append(f"{selector.strip()}: the outline is too faint")
        if "color" in colours and "background" not in colours:
            found.append(f"{selector.strip()}: a colour without a background")
        elif "color" in colours and _contrast(colours["color"], colours["background"]) < 4.5:
            found.append(f"{selector.strip()}: contrast below 4.5")
    return found


def _colour(value: str, names: dict[str, str]) -> tuple[float, ...]:
    text = re.search(r"#[0-9a-f]{6}", re.sub(r"var\((--[\w-]+)\)", lambda found: names[found[1]], value)).group()
    return tuple(int(text[i : i + 2], 16) / 255 for i in (1, 3, 5))


def _contrast(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """The contrast ratio of WCAG 2: of relative luminances, 1 to 21."""

    def luminance(colour):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_contrast_ratio():
    assert _contrast((0, 0, 0), (1, 1, 1)) == pytest.approx(21)
    grey = _colour("#767676", {})
    assert _contrast(grey, (1, 1, 1)) == pytest.approx(4.54, abs=0.005)


# --- the pages ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def joined():
    return assemble([planted(), real()])


@pytest.fixture(scope="module")
def audited():
    return audit.run_checks()


@pytest.fixture(scope="module")
def whole(audited):
    """Everything there is: all findings and claims, one table planted, one real."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit, "run_checks", lambda: audited)
        return report.whole([planted(), real()], COMMAND, ["The figures were not redrawn: they print no numbers."])


@pytest.fixture(scope="module")
def empty():
    return assemble()


def test_the_page_is_sound_and_small(whole):
    assert problems(whole) == []
    assert len(whole.encode()) < 1_500_000


BROKEN = {
    "2 <h1>": ("</header>", "<h1>again</h1></header>"),
    "h4 follows h2": ("<h3 ", "<h4 "),
    "no lang": ('<html lang="en">', "<html>"),
    "0 <nav>": ("nav", "div"),
    "a table has no caption": ("caption>", "p>"),
    "a table has a header without scope": ('scope="row"', ""),
    "rows of a table are": ("<td", "<td colspan=2"),
    "<select> has no label": ('<label for="table">', "<label>"),
    "an image has no alt": ("</header>", "<img src='data:,'></header>"),
    "occurs twice": ("<header>", '<header id="content">'),
    "refers to claims": ('id="claims"', ""),
    "closes something else": ("</table>", ""),
    "fetches https://x.org/a.js": ("</main>", '<a href="https://x.org/a.js">a</a></main>'),
    "has onclick": ("<header>", '<header onclick="f()">'),
    "the style sheet fetches": ("<style>", "<style>@import 'x';"),
    "the focus is not visible": ("outline: 3px solid var(--link)", "outline: none"),
    "contrast below 4.5": ("--soft: #515b66", "--soft: #8a949e"),
    "a colour without a background": ("<style>", "<style>b { color: #000000; }"),
    "the outline is too faint": ("outline: 3px solid var(--link)", "outline: 3px solid #eeeeee"),
    "takes the focus": ('role="region"', ""),
    "details do not begin": ("<details>", "<details>x<p>x</p>"),
    "a coloured word has no text": ("<header>", '<header><span class="word against"></span>'),
    "<form> has no name": ('aria-label="Filters"', ""),
    "a button has no text": ("Show all", ""),
    "no doctype": ("<!doctype html>", ""),
}


@pytest.fixture(scope="module")
def small(joined):
    """A page with one table and one finding."""
    parts = joined.cells, joined.relations, joined.extras, joined.runs
    one = type(joined)(*(part[(part["paper"] == "dsrf") & (part["table"] == "3")] for part in parts))
    return report.report([finding()], [], one, COMMAND, {"claims": (1, 1)})


@pytest.mark.parametrize("problem", BROKEN)
def test_the_checker_sees_it(problem, small):
    assert problems(small) == []
    old, new = BROKEN[problem]
    assert old in small
    found = problems(small.replace(old, new))
    assert any(problem in one for one in found), found


def test_what_stands_on_the_page(whole, audited):
    page = Page(whole)
    found, counts = audited
    shown = [element["id"] for element in page.all("article")]
    assert sorted(shown) == sorted(one.id for one in found)
    assert shown[:10] == [one.id for one in audit.key_facts(found)]
    assert len(page.all("img")) == 10  # a picture each
    kinds = pd.Series([element["data-kind"] for element in page.elements if "data-kind" in element]).value_counts()
    assert kinds["finding"] == len(found)
    assert kinds["claim"] == sum(len(claims.check_all(paper)) for paper in ("amsgfn", "dsrf"))
    text = " ".join(page.all("main")[0]["text"].split())
    for one in found:
        for part in (one.verdict, one.where, one.innocent_reading, one.computed, one.explanation, *one.instances):
            assert " ".join(part.split()) in text
    assert all(name in text for name in counts)
    assert "msa check --store runs" in page.all("header")[0]["text"]
    assert "The figures were not redrawn" in text


def cells_of(page):
    return page.all(data_kind="cell")


def test_every_printed_number_counts_once_and_has_a_line_per_reading(whole):
    shown = cells_of(Page(whole))
    assert sum(int(element["data-n"]) for element in shown) == (load_reported()["value"] != "").sum()
    lines = [element["text"] for element in shown if element["text"].startswith("w/o SFR, read as")]
    assert len(lines) == 2 * 7
    assert all("The printed cell: not comparable: synthetic, over its 2 readings." in text for text in lines)


def test_a_printed_cell_and_what_the_verdict_rests_on(joined, whole):
    line = joined.cells[(joined.cells["verdict"] == verdicts.COMPATIBLE)].iloc[0]
    page = Page(whole)
    columns = ["row", "column", "printed", "ours", "n", "interval, one run", "interval, very many", "detectable"]
    columns.append("seeds to show equality")
    table = next(e for e in page.all("table") if "real data" in e["text"] and "detectable" in e["text"])
    inside = table["within"]
    assert [e["text"] for e in inside if e.get("scope") == "col"] == [*columns, "verdict"]
    lines = [[e["text"] for e in row["within"] if e["tag"] in ("th", "td")] for row in inside if row["tag"] == "tr"]
    texts = next(texts[1:] for texts in lines if texts[:2] == [line["row"], column(line["metric"], line["side"])])
    k = line["decimals"]
    interval = f"{line['pi_1_low']:.{k}f} to {line['pi_1_high']:.{k}f}"
    many = f"{line['pi_inf_low']:.{k}f} to {line['pi_inf_high']:.{k}f}"
    assert texts[1] == line["reported"]
    assert texts[2].startswith(f"{line['mean']:.{k}f} ± {line['sd']:.{k}f}")
    assert texts[3:7] == ["5", interval, many, f"{line['mdd_1']:.{k}f} / {line['mdd_inf']:.{k}f}"]
    assert texts[7].split(" / ")[2] == f"{line['equivalence_seeds_inf']:.0f}".replace("inf", "never")
    assert texts[8] == line["verdict"] + line["reason"]


def test_the_same_input_gives_the_same_page(joined):
    first, second = (report.report([finding()], [], joined, COMMAND) for _ in range(2))
    assert first == second
    assert not re.search(r"20\d\d-\d\d-\d\d", first)


# --- synthetic data -------------------------------------------------------------------------------------------------


def test_synthetic_data_never_get_a_verdict_on_a_printed_number():
    page = planted()  # values that coincide with the printed ones: as compatible as can be
    joined = assemble([page])
    text = report.report([], [], joined, COMMAND)
    words = {element["data-verdict"] for element in cells_of(Page(text))}
    assert words == {verdicts.SYNTHETIC, verdicts.NOT_ATTEMPTED}
    assert "interval, one run" not in text
    assert "printed gap<br>" not in text  # a column of the tables on real data
    relation = joined.relations[joined.relations["table"] == "3"]
    assert {"holds", "undecided"} <= set(relation["verdict"])  # relations do get one, from the same runs
    assert len(Page(text).all(data_kind="relation")) == len(relation[relation["paper"] == "dsrf"])


def test_synthetic_data_are_called_so_on_every_table_with_our_numbers(joined):
    page = Page(report.report([], [], joined, COMMAND))
    named = [e["text"] for e in page.all("caption") if "DSRF Table 3" in e["text"]]
    assert len(named) == 3
    assert all("SYNTHETIC" in text for text in named)
    assert not any("SYNTHETIC" in e["text"] for e in page.all("caption") if "DSRF Table 1" in e["text"])


@pytest.mark.parametrize("word", sorted(set(verdicts.VERDICTS) - {verdicts.SYNTHETIC, verdicts.NOT_ATTEMPTED}))
def test_a_page_with_an_absolute_verdict_on_synthetic_data_is_refused(word, joined):
    cells = joined.cells.copy()
    cells.loc[cells["synthetic"].astype(bool).idxmax(), "verdict"] = word
    doctored = type(joined)(cells, joined.relations, joined.extras, joined.runs)
    with pytest.raises(ValueError, match="on synthetic data is"):
        report.report([], [], doctored, COMMAND)


def test_what_holds_by_construction_is_counted_apart_and_says_why(joined):
    lines = joined.relations[joined.relations["table"].eq("3") & joined.relations["paper"].eq("dsrf")]
    counts = verdict_counts(joined.relations).loc[("dsrf", "3", "mosi")]
    made = [word for word in counts.index if word.endswith(", by construction")]
    assert counts[made].sum() == 3 * 7  # three modalities, seven columns
    printed = lines.drop_duplicates(["metric", "side", "printed_better", "printed_worse"])
    assert counts.sum() == len(printed) < len(lines)
    page = Page(report.report([], [], joined, COMMAND))
    shown = [e["text"] for e in page.all(data_kind="relation") if "by construction" in e["text"]]
    assert len(shown) == (lines["by_construction"] != "").sum()
    assert sum("By construction: each modality dominates" in e["text"] for e in page.all("caption")) == 1


def test_a_relation_shows_what_its_word_rests_on(joined):
    page = Page(report.report([], [], joined, COMMAND))
    line = joined.relations[joined.relations["worse"] == "w/o HSF"].iloc[0]
    text = next(
        e["text"] for e in page.all(data_kind="relation") if e["text"].startswith("DSRF (Full) over w/o HSFMAE")
    )
    assert line["interval"] == "paired"
    for part in (f"paired, r = {line['correlation']:.2f}", f"{line['smallest_effect']:.3f}", f"{line['margin']:.3f}"):
        assert part in text
    assert line["verdict"] in text


# --- escaping, and nothing to show ----------------------------------------------------------------------------------


def test_hostile_text_stays_text():
    page = planted(HOSTILE)
    page.rows["label"] = page.rows["label"].replace("wide vector", HOSTILE)
    # (the rows carry the hostile name of the data set, too)
    excuse = TablePage("dsrf", 2, {}, pd.DataFrame(), not_attempted={"TFN": f"why {HOSTILE}"})
    checked = [
        claims.ClaimResult(one.claim | {"quote": f"claim {HOSTILE}"}, one.status, HOSTILE)
        for one in claims.check_all("dsrf")
    ]
    parts = {name: f"{name} {HOSTILE}" for name in ("where", "quote", "computed", "verdict", "explanation")}
    text = report.report(
        [finding(**parts)],
        checked,
        assemble([page, excuse]),
        {f"name {HOSTILE}": f"text {HOSTILE}"},
        {HOSTILE: (1, 1)},
        [f"note {HOSTILE}"],
    )
    assert problems(text) == []
    found = Page(text)
    assert len(found.all("script")) == 1
    assert not found.all("img")
    for part in (*parts.values(), f"why {HOSTILE}", f"claim {HOSTILE}", f"text {HOSTILE}", f"note {HOSTILE}"):
        assert part in found.all("body")[0]["text"]


def test_without_any_run_everything_is_not_attempted_and_says_why(empty):
    assert set(empty.cells["verdict"]) == {verdicts.NOT_ATTEMPTED}
    assert set(empty.cells["reason"]) == {NO_RUNS, "the paper prints a dash", "a count, not the result of a run"}
    text = report.report([], [], empty, {})
    assert problems(text) == []
    assert "no run of any table yet" in text
    assert NO_RUNS in Page(text).all("table")[-1]["text"]
    assert empty.runs.empty
    assert empty.extras.empty


# --- joining --------------------------------------------------------------------------------------------------------


def test_each_reading_of_an_ambiguous_row_has_its_own_line(joined):
    lines = joined.cells[(joined.cells["printed_row"] == "w/o SFR") & (joined.cells["metric"] == "mae")]
    assert lines["row"].tolist() == ["w/o SFR, read as routing removed", "w/o SFR, read as fusion replaced"]
    assert lines["label"].tolist() == ["no_routing", "no_usf"]
    assert lines["reported"].tolist() == ["0.709", "0.709"]
    compared = joined.relations[joined.relations["worse"].isin(lines["row"])]
    assert set(compared["worse"]) == set(lines["row"])


def test_rows_the_table_does_not_print_are_kept_apart(joined):
    assert joined.extras["label"].unique().tolist() == ["wide vector"]
    assert "wide vector" not in set(joined.cells["label"])


def test_each_half_of_a_table_takes_its_own_rows(joined):
    runs = joined.runs.set_index(["paper", "table", "dataset"])
    assert runs.loc[("dsrf", "1", "mosei"), "n_test"] == 4659
    assert runs.loc[("dsrf", "1", "mosi"), "seeds"] == "1111, 1112, 1113, 1114, 1115"
    counts = verdict_counts(joined.cells).loc[("dsrf", "1", "mosi")]
    assert counts[verdicts.SYNTHETIC] == 0
    assert counts[[verdicts.REPRODUCED, verdicts.COMPATIBLE]].sum() > 40


def test_several_cells_are_allowed_for_over_the_whole_table():
    cells = assemble([real(shift=3)]).cells
    table = cells[(cells["paper"] == "dsrf") & (cells["table"] == "1") & cells["p_1"].notna()]
    assert (table["p_1_holm"] >= table["p_1"]).all()
    smallest = table.loc[table["p_1"].idxmin()]
    assert smallest["p_1_holm"] == pytest.approx(smallest["p_1"] * len(table))  # of both data sets


def test_every_row_is_read_under_each_condition_it_was_run_under():
    frozen = ["full", "w/o HSF", "no_routing", "no_usf"]
    tuned = {label: f"{label}, tuned" for label in ("full", "w/o HSF", "no_usf")}
    rows = rows_like("dsrf", 3, "mosi", "planted-mosi", LABELS)
    rows = pd.concat([rows, *(rows[rows["label"] == label].assign(label=name) for label, name in tuned.items())])
    conditions = {"frozen features": dict(zip(frozen, frozen, strict=True)), "BERT fine-tuned": tuned}
    table = {"paper": "dsrf", "table": 3, "data": {"mosi": ("planted-mosi", True, 400)}, "rows": rows}
    pages = pages_from([table | {"ours": [*frozen, "w/o Audio"], "readings": {}, "conditions": conditions}])
    joined = assemble(pages)
    cells = joined.cells[joined.cells["table"].eq("3") & joined.cells["paper"].eq("dsrf")]
    labels = cells.drop_duplicates("row").groupby("printed_row")["label"].apply(list).to_dict()
    assert labels["DSRF (Full)"] == ["full", "full, tuned"]
    assert labels["w/o Audio"] == ["w/o Audio"]
    assert labels["w/o SFR"] == ["no_routing", "no_usf", "no_routing", "no_usf, tuned"]  # A, B, C, and B tuned
    found = joined.relations
    for name in ("better", "worse"):
        tuned_lines = found[found[name].str.contains("BERT fine-tuned")]
        other = {"better": "worse", "worse": "better"}[name]
        assert tuned_lines[other].str.contains("BERT fine-tuned").all()
        assert len(tuned_lines)


ROWS = rows_like("dsrf", 3, "mosi", "planted-mosi", LABELS)
PLANTED = {"mosi": Data("planted-mosi", True, 400)}


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ([TablePage("dsrf", 9, {}, pd.DataFrame())], "dsrf table 9 is not printed: expected one of amsgfn 1"),
        ([planted(), planted()], "two pages are of one table"),
        ([TablePage("dsrf", 3, PLANTED, ROWS, {"Our": "full"})], "dsrf table 3 has no row 'Our': expected one of DSRF"),
        ([TablePage("dsrf", 3, {}, pd.DataFrame(), {}, {"Our": "x"})], "dsrf table 3 has no row 'Our'"),
        ([TablePage("dsrf", 3, {"sims": Data("a", True, 1)}, pd.DataFrame())], "is not on 'sims': expected mosi"),
        ([TablePage("dsrf", 3, {}, ROWS, LABELS)], "are on 'planted-mosi': expected no rows"),
        ([TablePage("dsrf", 3, {"mosi": Data("x", True, 1)}, ROWS, LABELS)], "are on 'planted-mosi': expected x"),
        (
            [TablePage("dsrf", 3, {"mosi": Data("planted-mosi", False, 1)}, ROWS, LABELS)],
            "are synthetic: expected real",
        ),
        (
            [TablePage("dsrf", 1, {name: Data("a", True, 1) for name in ("mosi", "mosei")}, pd.DataFrame())],
            "two data sets under one name",
        ),
    ],
)
def test_one_sentence_about_pages_that_do_not_fit(pages, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        assemble(pages)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("where", "paper", "expected"),
    [
        ("Table 2, CMU-MOSI, row Our", "amsgfn", {"amsgfn-2"}),
        ("Tables 5 and 6", "amsgfn", {"amsgfn-5", "amsgfn-6"}),
        ("Table 1 and Table 2", "dsrf", {"dsrf-1", "dsrf-2"}),
        ("AMSGFN Tables 2 to 4; DSRF Tables 1 and 2", "both", {"amsgfn-2", "amsgfn-3", "amsgfn-4", "dsrf-1", "dsrf-2"}),
        ("Eq. 16, section 3.6; Tables 1 and 2", "dsrf", {"dsrf-1", "dsrf-2"}),
        ("Section 4.4", "dsrf", set()),
    ],
)
def test_the_tables_a_finding_names(where, paper, expected):
    assert report.places(where, paper) == expected


# --- filters --------------------------------------------------------------------------------------------------------


def test_filters_offer_what_there_is_and_wait_for_the_script(whole):
    page = Page(whole)
    form = page.all("form")[0]
    assert "hidden" in form  # without JavaScript nothing is offered that would not work
    options = {}
    for option in page.all("option"):
        name = next(parent["name"] for parent in option["inside"] if parent["tag"] == "select")
        options.setdefault(name, set()).add(option.get("value", option["text"]))
    items = [element for element in page.elements if "data-kind" in element]
    for name in ("paper", "table", "verdict", "severity"):
        there = {
            word
            for item in items
            for word in ([item["data-verdict"]] if name == "verdict" else item[f"data-{name}"].split())
        }
        assert there <= options[name], name
        assert "" in options[name]
    assert options["severity"] == {"", "high", "medium", "low", "note"}


# --- in a browser ---------------------------------------------------------------------------------------------------

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage")
FLAGS += ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr")


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """Opens a text as a page in headless Chromium: -> the page after its script ran, and what the console says."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("no Chromium here")
    folder = tmp_path_factory.mktemp("browser")

    def browse(text: str, query: str = "") -> tuple[str, list[str]]:
        path = folder / "page.html"
        path.write_text(text, encoding="utf-8")
        command = [program, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", f"{path.as_uri()}{query}"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=120)
        return run.stdout, [line for line in run.stderr.splitlines() if "CONSOLE" in line]

    dom, console = browse("<!doctype html><title>t</title><script>document.title = 'ran'; undefinedName()</script>")
    if "ran" not in dom:
        pytest.skip("Chromium is here but cannot open a page")
    assert len(console) == 1  # an error would be seen
    return browse


def test_the_script_runs_and_nothing_is_logged(browse, whole):
    dom, console = browse(whole)
    assert console == []
    page = Page("<!doctype html>" + dom.split(">", 1)[1])
    assert "hidden" not in page.all("form")[0]
    n = len(page.all("article"))
    assert f"{n} of {n} findings" in page.all("output")[0]["text"]
    assert not [element for element in page.elements if "data-kind" in element and "hidden" in element]


@pytest.mark.parametrize(
    ("query", "name", "word"),
    [
        ("?severity=high", "data-severity", "high"),
        ("?paper=amsgfn", "data-paper", "amsgfn"),
        ("?table=dsrf-3", "data-table", "dsrf-3"),
        ("?verdict=not%20attempted", "data-verdict", "not attempted"),
    ],
)
def test_a_filter_leaves_what_it_names(query, name, word, browse, whole):
    dom, console = browse(whole, query)
    assert console == []
    items = [element for element in Page("<!doctype html>" + dom.split(">", 1)[1]).elements if "data-kind" in element]
    shown = [item for item in items if "hidden" not in item]
    matching = [item for item in items if word == item[name] or word in item[name].split()]
    assert list(map(id, shown)) == list(map(id, matching))
    assert 0 < len(shown) < len(items)
    for item in shown:
        assert not any("hidden" in parent for parent in item["inside"])
        assert all("open" in parent for parent in item["inside"] if parent["tag"] == "details")


def test_text_is_searched_in_any_case_and_a_link_opens_its_finding(browse, joined):
    text = report.report(
        [finding(), finding(id="dsrf-claim-other", quote="QUEEN", touches="detail")], [], joined, COMMAND
    )
    dom, _ = browse(text, "?text=queen")
    shown = [e["id"] for e in Page(dom).all("article") if "hidden" not in e]
    assert shown == ["dsrf-claim-other"]
    dom, console = browse(text, "?text=nothing-like-it#dsrf-claim-other")
    target = next(e for e in Page(dom).all("article") if e["id"] == "dsrf-claim-other")
    assert console == []
    assert "hidden" not in target
    assert all("open" in parent for parent in target["inside"] if parent["tag"] == "details")
