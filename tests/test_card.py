"""The facts a model's class states beside its network: card, recipes, the small size, where it can be used."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from toy import dataset, text_only

from msa_lib.data import REAL, Dataset
from msa_lib.models import MODELS, build_model
from msa_lib.models.card import Card, Stated, all_but, lacking, settings
from msa_lib.switches import checked
from msa_lib.train import TrainConfig
from papers_check import PAPERS
from papers_check.checks.gaps import load_gaps


def knowing(*facts: str) -> Dataset:
    """The toy data, of whose samples so many planted facts are known."""
    whole = dataset()
    splits = {name: replace(split, truth=dict.fromkeys(facts, split.labels)) for name, split in whole.splits.items()}
    return replace(whole, **splits)


DATA = {"planted": knowing("dominant", "noise"), "real": knowing(), "text only": text_only(dataset())}


@pytest.mark.parametrize("name", MODELS)
def test_a_card_names_switches_and_says_where_the_model_is_from(name):
    card = MODELS[name].CARD
    assert isinstance(card, Card)
    assert card.fidelity in ("specified", "completed", "partial")
    assert all((card.paper, card.specified, card.ours))
    assert set(card.choices) <= {f.name for f in fields(MODELS[name].Config)}


@pytest.mark.parametrize("name", PAPERS)
def test_what_the_audit_finds_open_is_ours_by_the_card(name):
    model = MODELS[name]
    gaps = load_gaps(name)["switch"].str.partition(".")
    opened = set(gaps[gaps[0] == model.Config.__name__][2])
    assert opened
    assert opened <= set(model.CARD.choices)


@pytest.mark.parametrize("name", MODELS)
def test_recipes_are_settings_that_exist_each_with_its_source(name):
    model, training = MODELS[name], {f.name for f in fields(TrainConfig)}
    assert set(model.RECIPES) <= set(REAL)
    for recipe in model.RECIPES.values():
        assert all(isinstance(stated, Stated) and stated.source for stated in recipe.values())
        values = settings(recipe)
        checked(TrainConfig, {k: v for k, v in values.items() if k in training}, "training setting")
        checked(model.Config, {k: v for k, v in values.items() if k not in training}, "switch")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", DATA)
def test_a_variant_that_fits_can_be_built_and_one_that_does_not_has_a_reason(name, kind):
    model, reasons = MODELS[name], {}
    for label, switches in model.VARIANTS.items():
        reasons[label] = model.fits(DATA[kind], switches)
        if not reasons[label]:
            build_model(name, DATA[kind], **{**model.SMALL, **switches})
    needs_all = not hasattr(model.Config(), "modalities")
    assert bool(model.fits(DATA[kind], {})) == (kind == "text only" and needs_all)
    assert all(reason.endswith(".") and DATA[kind].name in reason for reason in reasons.values() if reason)
    assert any(reasons.values()) == (kind == "text only" or (name in PAPERS and kind == "real"))


def test_the_reason_names_what_is_missing():
    amsgfn, dsrf = MODELS["amsgfn"], MODELS["dsrf"]
    assert amsgfn.fits(DATA["text only"], {"modalities": "ta"}) == "It needs audio, which hand-made lacks."
    assert dsrf.fits(DATA["text only"], {"modalities": "av"}) == "It needs audio and vision, which hand-made lacks."
    assert amsgfn.fits(DATA["text only"], {"select": "fixed:v"}) == "It needs vision, which hand-made lacks."
    assert "dominant modality" in amsgfn.fits(DATA["real"], {"select": "oracle"})
    assert lacking(DATA["planted"], "tav") == ""


def test_a_card_cannot_leave_out_a_switch_that_is_not_there():
    with pytest.raises(ValueError, match="DSRFConfig has no switch depth"):
        all_but(MODELS["dsrf"].Config, "d", "depth")


def test_the_recipes_of_dsrf_are_those_of_its_section_4_2():
    """In the paper's order: MOSI, MOSEI, SIMS, SIMSv2. One rate is printed, so it holds for the text encoder too."""
    printed = {
        "lr": (3e-5, 1e-5, 1e-5, 1e-5),
        "batch_size": (32, 64, 32, 32),
        "d": (128, 128, 64, 128),
        "weight_decay": (1e-3, 1e-3, 1e-2, 1e-2),
    }
    printed["lr_encoder"] = printed["lr"]
    recipes = MODELS["dsrf"].RECIPES
    for k, name in enumerate(("mosi", "mosei", "sims", "simsv2")):
        assert settings(recipes[name]) == {key: values[k] for key, values in printed.items()}
        assert all("section 4.2" in stated.source for stated in recipes[name].values())
