"""A wrong or mistyped name or value raises one sentence that names the right ones."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, dataclass, fields
from typing import Literal

import pytest

from msa_lib.models import MODELS, build_model
from msa_lib.switches import checked, listing
from msa_lib.train import TrainConfig


@dataclass(frozen=True)
class Config:
    rate: float
    size: int = 4
    on: bool = True
    kind: Literal["plain", "fancy"] = "plain"
    level: Literal[1, 2] = 1
    weights: tuple[float, float] = (1.0, 1.0)
    sizes: tuple[int, ...] = ()
    limit: float | None = None
    name: str = ""


def test_values_that_fit_are_taken():
    values = {"rate": 2, "weights": [1, 0.5], "sizes": [1, 2, 3], "limit": None, "kind": "fancy"}
    got = checked(Config, values, "switch")
    assert got == Config(2.0, weights=(1, 0.5), sizes=(1, 2, 3), kind="fancy")
    assert isinstance(got.rate, float)  # 2 and 2.0 are one run
    assert hash(got) == hash(Config(2.0, weights=(1, 0.5), sizes=(1, 2, 3), kind="fancy"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": "2"}, "switch rate='2': expected a number."),
        ({"rate": True}, "switch rate=True: expected a number."),
        ({"rate": 1, "size": 2.0}, "switch size=2.0: expected an integer."),
        ({"rate": 1, "size": True}, "switch size=True: expected an integer."),
        ({"rate": 1, "on": 1}, "switch on=1: expected true or false."),
        ({"rate": 1, "on": "false"}, "switch on='false': expected true or false."),
        ({"rate": 1, "kind": "Plain"}, "switch kind='Plain': expected one of 'plain', 'fancy'."),
        ({"rate": 1, "kind": None}, "switch kind=None: expected one of 'plain', 'fancy'."),
        ({"rate": 1, "level": 3}, "switch level=3: expected one of 1, 2."),
        ({"rate": 1, "level": True}, "switch level=True: expected one of 1, 2."),
        ({"rate": 1, "name": 3}, "switch name=3: expected a text."),
        ({"rate": 1, "weights": [1.0]}, "switch weights=(1.0,): expected a list of a number, a number."),
        ({"rate": 1, "weights": [1, "2"]}, "switch weights=(1, '2'): expected a list of a number, a number."),
        ({"rate": 1, "sizes": [1, 2.5]}, "switch sizes=(1, 2.5): expected a list of an integer, ...."),
        ({"rate": 1, "limit": "no"}, "switch limit='no': expected a number or none."),
        ({"size": 1}, "switch rate is needed."),
        ({"rate": 1, "siez": 3}, "No switch 'siez': did you mean 'size'? The names are rate, size, on, kind,"),
        ({"rate": 1, "zzz": 3}, "No switch 'zzz': the names are rate, size, on, kind,"),
    ],
)
def test_values_that_do_not_fit_raise_one_sentence(values, message):
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        checked(Config, values, "switch")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("config", [TrainConfig, *(model.Config for model in MODELS.values())])
def test_every_default_passes_its_own_check(config):
    defaults = {f.name: getattr(config(), f.name) for f in fields(config)}
    assert checked(config, defaults, "switch") == config()


@pytest.mark.parametrize("name", MODELS)
def test_every_variant_names_real_switches(name):
    for switches in getattr(MODELS[name], "VARIANTS", {}).values():
        checked(MODELS[name].Config, switches, "switch")


def test_an_unknown_model_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="No model 'amsgnf': expected one of amsgfn"):
        build_model("amsgnf", None)


@dataclass(frozen=True)
class Commented:
    """Not a comment: x = 1  # nor this"""

    # Part one
    needed: str
    plain: int = 1
    # heads `beside`: no comment stands beside the line above
    beside: float = 0.5  # its own, "# quoted"
    # and goes on here

    # Part two,
    # of two lines
    several: Literal["one", "two"] | None = (
        "one"  # inside the brackets, and so long that the line would not hold it beside the name and the type of it
    )
    oddName: int = 3  # noqa: N815
    last: bool = True


def test_a_listing_says_choices_default_and_the_comment_beside_each():
    assert listing(Commented).splitlines() == [
        "",
        "  # Part one",
        "  plain = 1  (an integer)",
        "",
        "  # heads `beside`: no comment stands beside the line above",
        "  beside = 0.5  (a number)",
        '      its own, "# quoted" and goes on here',
        "",
        "  # Part two, of two lines",
        "  several = 'one'  (one of 'one', 'two' or none)",
        "      inside the brackets, and so long that the line would not hold it beside the name and the type of it",
        "  oddName = 3  (an integer)",
        "  last = True  (true or false)",
    ]


@pytest.mark.parametrize("config", [*(model.Config for model in MODELS.values()), TrainConfig])
def test_every_switch_and_every_comment_is_listed(config):
    lines = listing(config, width=10_000).splitlines()
    names = [line.split(" = ")[0].strip() for line in lines if re.match(r"  [A-Za-z]\w* = ", line)]
    assert names == [f.name for f in fields(config) if f.default is not MISSING]
    text = " ".join(lines)
    source = "\n".join(line for line in inspect.getsource(config).splitlines() if "default_factory" not in line)
    comments = re.findall(r"  # (?!noqa|fmt:)(.+)", source)
    assert [comment for comment in comments if comment not in text] == []
