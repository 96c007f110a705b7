"""One sample seen by networks: what the page of that name shows, without its widgets."""

import json

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest

from msa_lib import notebooks, runs
from msa_lib.runs import Run
from msa_lib.runs.identity import dataset_of
from msa_lib.study import explore, sample_plots

NAME = "planted?train=48&valid=24&test=32"


@pytest.fixture(scope="module")
def data():
    return dataset_of(NAME, None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two networks of one epoch, and the store they are in."""
    store = tmp_path_factory.mktemp("store")
    wanted = [Run(r.model, r.data, r.seed, r.switches, {"epochs": 1, "batch_size": 16}, label=r.label)
              for r in explore.small(["amsgfn", "dsrf"], NAME)]  # fmt: skip
    return explore.networks(wanted, store), store, wanted


def test_networks_are_named_and_predict_what_their_runs_did(trained, data):
    networks, store, wanted = trained
    assert list(networks) == ["AMSGFN", "DSRF"]
    found = explore.predictions(networks, data.test)
    assert list(found.columns) == ["label", "AMSGFN", "DSRF"]
    kept = runs.predictions(wanted[1], store)["predictions"]
    np.testing.assert_allclose(found["DSRF"], kept, atol=1e-5)


def test_runs_of_a_store_are_found_by_their_names(trained, data):
    _, store, wanted = trained
    ids = [runs.run_id(runs.parameters(run, store)) for run in wanted]
    found = explore.kept([ids[0], ids[1][:10]], store, NAME)
    assert [run.label for run in found] == [f"AMSGFN ({ids[0][:6]})", f"DSRF ({ids[1][:6]})"]
    assert list(explore.networks(found, store)) == [run.label for run in found]
    with pytest.raises(ValueError, match="'zz' fits 0 runs of the store; expected the name of one of its folders"):
        explore.kept(["zz"], store, NAME)
    with pytest.raises(ValueError, match=r"is on planted\?train=48.*; expected one on planted\?train=16"):
        explore.kept(ids[:1], store, "planted?train=16&valid=8&test=8")
    with pytest.raises(ValueError, match="No model 'bert': expected some of amsgfn, dsrf"):
        explore.small(["bert"], NAME)


def test_disagreements_come_largest_first_and_are_counted():
    found = pd.DataFrame({"label": [0.0, 1.0, 2.0, 0.0], "a": [0.0, 1.0, 0.0, 1.0], "b": [0.5, -1.0, 2.0, 1.0]})
    table = explore.disagreements(found.rename_axis("sample"), "a", "b", 2)
    assert table["sample"].tolist() == [1, 2]
    assert table["apart"].tolist() == [2.0, 2.0]
    said = explore.apart(found, "a", "b", by=1)
    assert "differ by more than 1 on 2 of 4 test samples (50%" in said
    assert "a is the nearer one in 1 of 2" in said
    assert explore.apart(found, "a", "a", by=1).endswith("to 49%).")  # nobody is nearer where nothing is apart
    with pytest.raises(ValueError, match="No network 'c': expected two of a, b"):
        explore.disagreements(found, "a", "c")


def test_what_is_known_of_a_sample_is_said_in_words(data):
    known = explore.facts(data, 3).set_index("what")["value"]
    truth = data.test.truth
    assert known["planted: dominant"] == ("text", "audio", "vision")[int(truth["dominant"][3])]
    assert known["planted: conflict"] in ("yes", "no")
    assert known["text"] == data.test.raw_text[3]
    assert f"audio {float(truth['noise'][3, 1]):.3g}" in known["planted: noise"]


def test_noise_is_on_one_sample_and_one_modality(data):
    clean, noisy = explore.sample(data, 5), explore.sample(data, 5, "vision", 2.0)
    assert len(noisy) == 1
    assert noisy.ids == (data.test.ids[5],)
    assert (clean.vision == data.test.vision[5]).all()
    assert (noisy.vision != clean.vision).any()
    assert (noisy.text == clean.text).all()


def test_networks_move_with_the_noise_from_what_they_say_of_the_clean_sample(trained, data):
    networks, found = trained[0], explore.predictions(trained[0], data.test)
    moved = explore.under_noise(networks, data, 4, "text", (0.0, 1.0, 8.0))
    assert moved["level"].tolist() == [0.0, 1.0, 8.0]
    np.testing.assert_allclose(moved.loc[0, ["AMSGFN", "DSRF"]], found.loc[4, ["AMSGFN", "DSRF"]], atol=1e-5)
    assert moved["AMSGFN"].nunique() == 3


def test_what_goes_on_inside_has_no_batch_and_can_be_drawn(trained, data):
    one = explore.sample(data, 0, "audio", 1.0)
    seen = {label: explore.inside(network, one) for label, network in trained[0].items()}
    assert seen["AMSGFN"]["contribution"].shape == (3,)
    assert seen["AMSGFN"]["dominant"] == seen["AMSGFN"]["contribution"].argmax()
    assert seen["DSRF"]["couplings"].shape[1:3] == (3, 4)
    np.testing.assert_allclose(seen["DSRF"]["couplings"].sum(-1), 1, atol=1e-5)
    figure = sample_plots.inside("AMSGFN", seen["AMSGFN"], True)
    assert "is dominant" in figure.get_suptitle()
    assert len(sample_plots.inside("DSRF", seen["DSRF"], True).axes) == 3 + len(seen["DSRF"]["couplings"])
    assert sample_plots.inside("lmf", {}, True) is None
    plt.close("all")


def test_widgets_are_not_stored(tmp_path):
    """Their ids differ each time, and without their kernel they are an error message."""
    node = nbformat.v4.new_notebook(metadata={"widgets": {"state": {"1f3a": {}}}})
    live = nbformat.v4.new_output("display_data", data={notebooks.WIDGET: {"model_id": "1f3a"}, "text/plain": "VBox()"})
    still = nbformat.v4.new_output("display_data", data={"text/plain": "a table"})
    node.cells = [nbformat.v4.new_markdown_cell("# T"), nbformat.v4.new_code_cell("x", outputs=[live, still])]
    notebooks._store(node, tmp_path / "x.partial.ipynb", tmp_path / "x.ipynb")
    text = (tmp_path / "x.ipynb").read_text()
    assert "1f3a" not in text
    assert [output["data"] for output in json.loads(text)["cells"][1]["outputs"]] == [{"text/plain": ["a table"]}]
