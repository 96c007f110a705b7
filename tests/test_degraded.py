"""Poorer training data: fewer samples, labels of other samples; and rows trained again on them."""

import pandas as pd
import pytest
import torch
from toy import DATA

from msa_lib import study
from msa_lib.data import load_dataset
from msa_lib.data.degraded import cycled
from msa_lib.study import retrained

NAME = "planted?train=40&valid=20&test=10"


def test_fewer_samples_are_nested_and_only_of_the_training_split():
    whole, half, few = (load_dataset(NAME + extra) for extra in ("", "&train_share=0.5", "&train_share=0.125"))
    assert [len(data.train) for data in (whole, half, few)] == [40, 20, 5]
    assert set(few.train.ids) < set(half.train.ids) < set(whole.train.ids)
    place = whole.train.ids.index(few.train.ids[2])
    assert few.train.labels[2] == whole.train.labels[place]
    assert (few.train.text[2] == whole.train.text[place]).all()
    assert few.train.truth["noise"][2].tolist() == whole.train.truth["noise"][place].tolist()
    assert few.train.raw_text[2] == whole.train.raw_text[place]
    assert (half.test.labels == whole.test.labels).all()
    assert half.valid.ids == whole.valid.ids
    assert len({data.fingerprint for data in (whole, half, few)}) == 3
    assert "Only 5 of 40 training samples, drawn at random." in few.notes


def test_labels_are_passed_on_within_the_share():
    whole, noisy, more = (load_dataset(NAME + extra) for extra in ("", "&label_noise=0.25", "&label_noise=0.75"))
    for name, touched in (("train", 10), ("valid", 5)):
        before, after = whole.splits[name], noisy.splits[name]
        assert sorted(after.labels.tolist()) == sorted(before.labels.tolist())
        moved = (after.unimodal_labels != before.unimodal_labels).any(1)
        assert int(moved.sum()) == touched
        assert not (after.labels != before.labels)[~moved].any()
        assert moved[~(more.splits[name].unimodal_labels != before.unimodal_labels).any(1)].sum() == 0
        assert (after.text == before.text).all()
    assert (noisy.test.labels == whole.test.labels).all()
    assert (load_dataset(NAME + "&label_noise=0").train.labels == whole.train.labels).all()


def test_who_is_chosen_gets_from_another_and_the_rest_from_itself():
    source = cycled(50, 0.4, seed=3)
    assert sorted(source.tolist()) == list(range(50))
    assert int((source != torch.arange(50)).sum()) == 20
    assert cycled(50, 0.0, 3).tolist() == list(range(50))


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("train_share=0", r"train_share of planted.* is 0; expected a share in \(0, 1\]"),
        ("train_share=nan", "train_share of planted.* is nan"),
        ("label_noise=1.5", r"label_noise of planted.* is 1\.5; expected a share in \[0, 1\]"),
        ("label_noise=half", "label_noise='half' of planted.*: expected a share such as 0.5"),
    ],
)
def test_wrong_shares_are_refused_in_one_sentence(option, words):
    with pytest.raises(ValueError, match=words):
        load_dataset(f"{NAME}&{option}")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    store = str(tmp_path_factory.mktemp("store"))
    return study.shown("figure_robustness", DATA, seeds=1, scale="smoke", train=True, store=store)


def test_rows_are_trained_again_on_poorer_data_and_begin_at_their_own_score(page):
    found = retrained.curves(page, ["amsgfn"])["retrained"]
    assert set(found["row"]) == {"AMSGFN", "ridge"}
    assert list(found.columns) == list(retrained.COLUMNS)
    for kind, (_, values) in retrained.LEVELS.items():
        levels = found[found["kind"] == kind].groupby("row")["level"].apply(sorted)
        assert all(part == [0.0, *sorted(values.values())] for part in levels)
    own = page.values().loc[1111, "AMSGFN"]
    assert (found.query("row == 'AMSGFN' and level == 0")["mae"] == own).all()
    assert found.query("row == 'ridge'")["mae"].nunique() > 3


def test_fewer_samples_are_seen_as_often_in_all(page):
    runs = retrained.runs_of(page, ["amsgfn"])
    own, ridge = runs["fewer samples", 0.0]
    assert own.train["epochs"] == 2
    for (kind, level), (run, reference) in runs.items():
        longer = {("fewer samples", 0.5): 2, ("fewer samples", 0.75): 4}.get((kind, level), 1)
        assert run.train["epochs"] == 2 * longer
        assert run.train.get("patience", 10) == 10 * longer
        assert reference.train == ridge.train == {}
        assert run.data.startswith(own.data)


def test_nothing_is_trained_again_unless_asked(page):
    found = retrained.curves(page, [])["retrained"]
    assert found.empty
    assert list(found.columns) == list(retrained.COLUMNS)
    assert isinstance(found, pd.DataFrame)


def test_a_model_that_the_page_lacks_is_refused(page):
    with pytest.raises(ValueError, match="No model 'lmf' on this page to train again: expected some of dsrf, amsgfn"):
        retrained.curves(page, ["amsgfn", "lmf"])
