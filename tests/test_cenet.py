"""CENet: its size, the enhancement in loops, where it sits in a language model, its training, and the released code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from replay import assert_equal, public_shape, reference, replayed, with_weights
from toy import close, dataset, with_encoder
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

from msa_lib.data import load_dataset
from msa_lib.models import build_model
from msa_lib.models.card import settings
from msa_lib.models.cenet import RECIPES, CENet, CENetConfig, Clusters, Enhancement, clusters_of
from msa_lib.train import TrainConfig, fit

RELEASED = {"scale": "eight", "padding": "counted", "embeddings": "frozen"}
HEAD = 768 * 768 + 768 + 768 + 1
TINY = {
    "vocab_size": 12,
    "hidden_size": 8,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 8,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


@pytest.fixture
def encoder(tmp_path) -> str:
    torch.manual_seed(0)
    BertModel(BertConfig(**TINY)).save_pretrained(tmp_path / "bert")
    return str(tmp_path / "bert")


@pytest.mark.parametrize(("data", "parameters"), [("mosi", 5_925_888), ("mosei", 5_990_400), ("sims", 6_476_544)])
def test_it_has_as_many_parameters_as_counted(data, parameters):
    network = build_model("cenet", public_shape(data))
    assert sum(p.numel() for p in network.enhance.parameters()) == parameters
    assert sum(p.numel() for p in network.parameters()) == parameters + HEAD


@pytest.mark.parametrize(("case", "switches"), [("full", {}), ("as in MMSA", RELEASED)])
def test_it_equals_the_released_code(case, switches, encoder):
    """The described reading is the released code on the valid steps of one sample after the other, with another factor
    and gradients for the embeddings."""
    ref = reference("cenet")
    assert (str(ref["repository"]), str(ref["commit"])) == ("thuiar/MMSA", "a94e65d")
    assert np.abs(ref["full/prediction"] - ref["as in MMSA/prediction"]).max() > 0.1
    assert np.abs(ref[f"{case}/after"] - ref[f"{case}/prediction"]).max() > 0.1
    training = {"scale": 1.0, "encoder": encoder, "lr_encoder": float(ref["lr"]), "weight_decay": 1e-2, "clip": 2.0}
    assert_equal(replayed(ref, "cenet", case, {"bert": "finetune", "dropout": 0.0, **switches}, training))


@pytest.mark.parametrize(("scale", "factor"), [("root", 5**-0.5), ("eight", 8.0)])
def test_the_shift_of_each_word_is_what_it_reads_in_vision_and_in_audio(scale, factor):
    torch.manual_seed(0)
    enhance, X = Enhancement(dataset(), 5, CENetConfig(scale=scale)), torch.randn(1, 2, 5)
    audio, vision, masks = (
        torch.randn(1, 3, 2),
        torch.randn(1, 4, 4),
        [torch.ones(1, n, dtype=torch.bool) for n in (3, 4)],
    )
    w = {name: p.detach().double().numpy() for name, p in enhance.named_parameters()}

    def linear(name, x):
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    def read(name, word, frames):
        frames = [linear(f"{name}.2", np.maximum(linear(f"{name}.0", x), 0)) for x in frames]
        scores = [factor * linear(f"read_{name}.q", word) @ linear(f"read_{name}.k", x) for x in frames]
        weights = np.exp(scores) / np.exp(scores).sum()
        return sum(weight * linear(f"read_{name}.v", x) for weight, x in zip(weights, frames, strict=True))

    words, audio_, vision_ = (x[0].double().numpy() for x in (X, audio, vision))
    expected = [
        x + linear("shift", np.concatenate([read("vision", x, vision_), read("audio", x, audio_)])) for x in words
    ]
    close(
        enhance(X, *zip((audio, vision), masks, strict=True))[0], torch.tensor(np.array(expected), dtype=torch.float32)
    )


def test_frames_that_are_not_there_are_not_read():
    torch.manual_seed(0)
    enhance, X = Enhancement(dataset(), 5, CENetConfig(scale="eight")), torch.randn(1, 2, 5)
    audio, vision = torch.randn(1, 3, 2), torch.randn(1, 4, 4)
    all_there, none = torch.ones(1, 3, dtype=torch.bool), torch.zeros(1, 4, dtype=torch.bool)
    shift = (enhance(X, (audio, all_there), (vision, none)) - X) - enhance.shift.bias
    only = torch.cat([torch.zeros(1, 2, 5), enhance.read_audio(X, *enhance.audio(audio, all_there))], -1)
    close(shift, only @ enhance.shift.weight.T, atol=1e-5)


def test_with_clusters_it_has_as_many_parameters_as_the_authors_code():
    network = build_model("cenet", load_dataset("planted-mosi?train=4&valid=1&test=1"), nonverbal="clusters")
    assert sum(p.numel() for p in network.enhance.parameters()) == 4_750_080


def test_clusters_are_those_of_the_frames_that_are_there():
    """Two features of very different size, each of which tells two groups; padding and absent frames are far away."""
    g = torch.Generator().manual_seed(0)
    group = torch.stack([torch.randint(0, 2, (30, 8), generator=g) for _ in range(2)], -1)
    x = (group + 0.0) * torch.tensor([1.0, 1000.0])
    mask = torch.arange(8) < torch.randint(0, 9, (30, 1), generator=g)
    centres, spread = clusters_of(x.masked_fill(~mask[..., None], 1e6), mask)
    assert sorted((centres * spread).round().tolist()) == [[0, 0], [0, 1000], [1, 0], [1, 1000]]
    close(spread, x[mask].std(0, correction=0), atol=1e-3)


def test_a_frame_is_the_vector_of_its_cluster_and_long_samples_are_thinned():
    torch.manual_seed(0)
    data = load_dataset("planted?train=40&valid=1&test=1&steps=60,60,60")
    masked, counted = (Clusters(data, 1, 3, padding) for padding in ("masked", "counted"))
    counted.load_state_dict(masked.state_dict())
    x = torch.randn(2, 70, data.feature_dims[1])
    mask = torch.arange(70) < torch.tensor([[70], [4]])
    frames, there = masked(x, mask)
    assert there.sum(1).tolist() == [50, 4]
    for b, steps in ((0, [i * 70 // 50 for i in range(50)]), (1, range(4))):
        for i, step in enumerate(steps):
            far = [(((x[b, step] / masked.spread) - centre) ** 2).sum() for centre in masked.centres]
            assert torch.equal(frames[b, i], masked.weight[int(np.argmin(far))])
    filled, all_there = counted(x[1:, :10], mask[1:, :10])
    assert all_there.shape == (1, 50)
    assert all_there.all()
    close(filled[0, :4], frames[1, :4])
    close(filled[0, 4:], masked.weight[16].expand(46, 3))


def test_with_clusters_the_shift_is_that_of_the_authors_code():
    """Frames that are the centres themselves; as many as are read, the last ones padding."""
    ref = {name.partition("/")[2]: value for name, value in reference("cenet").items() if name.startswith("authors/")}
    assert (str(ref["repository"]), str(ref["commit"])) == ("Say2L/CENet", "e208a83")
    switches = CENetConfig(nonverbal="clusters", padding="counted", scale="eight")
    enhance = Enhancement(load_dataset("planted?train=20&valid=1&test=1&dims=8,16,16"), 8, switches)
    with_weights(ref, enhance, scale=1.0)
    for part in (enhance.audio, enhance.vision):
        part.centres, part.spread = torch.eye(16), torch.ones(16)
    ids = torch.tensor(ref["ids"])
    audio, vision = ((torch.eye(16)[i.clamp(max=15)], i < 16) for i in ids)
    close(enhance(torch.tensor(ref["states"]), audio, vision), torch.tensor(ref["shifted"]), atol=1e-5)


def encoded(encoder: str, **switches):
    """Data with tokens for that encoder, a network, and a batch."""
    data = with_encoder(dataset(), encoder)
    BertModel(BertConfig(**{**TINY, "vocab_size": 30})).save_pretrained(encoder)
    torch.manual_seed(0)
    return data, build_model("cenet", data, **switches), data.train.batch(range(6))


def test_the_language_model_is_changed_after_its_first_layer(encoder):
    """Nothing changed, it is the language model as it comes; a change is seen by the other layers alone."""
    _, network, batch = encoded(encoder, bert="finetune")
    model = network.eval().text_encoder.model
    ids, mask, segments = batch.tokens.unbind(1)
    whole = model(input_ids=ids, attention_mask=mask, token_type_ids=segments, output_hidden_states=True)
    valid = mask.bool()
    close(network.text_encoder(batch.tokens)[valid], whole.last_hidden_state[valid])
    seen = []
    network.text_encoder(batch.tokens, lambda X: seen.append(X) or X + 1)
    close(seen[0][valid], whole.hidden_states[1][valid])


@pytest.mark.parametrize(
    ("bert", "embeddings", "learning"),
    [
        ("finetune", "trained", {"embeddings", "encoder"}),
        ("finetune", "frozen", {"encoder"}),
        ("frozen", "trained", set()),
    ],
)
def test_which_parts_of_the_language_model_learn(encoder, bert, embeddings, learning):
    """The enhancement learns through layers that are frozen, too."""
    _, network, batch = encoded(encoder, bert=bert, embeddings=embeddings)
    network.loss(batch, network(batch))["total"].backward()
    moved = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert {name.split(".")[2] for name in moved if name.startswith("text_encoder.")} == learning
    assert {"enhance.shift.weight", "enhance.audio.0.weight", "enhance.read_vision.q.weight"} <= moved


def test_it_works_inside_encoders_like_bert_only(tmp_path):
    data = with_encoder(dataset(), tmp_path)
    small = {"vocab_size": 30, "dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 8}
    DistilBertModel(DistilBertConfig(**small)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="expected one of bert, roberta, xlm-roberta, not distilbert"):
        build_model("cenet", data, bert="finetune")


def test_a_sample_without_text_gets_what_the_head_makes_of_zeros():
    torch.manual_seed(0)
    data = dataset()
    network, batch = build_model("cenet", data).eval(), data.train.batch([0, 1])
    torch.nn.init.ones_(network.head[1].bias)
    got = network(batch._replace(lengths=batch.lengths * torch.tensor([[0, 1, 1], [1, 1, 1]]))).prediction
    close(got[0], network.head(torch.zeros(3))[0])
    assert (got[0] - got[1]).abs() > 1e-4


def test_padding_is_read_as_released_only():
    """By as many frames of zeros as the data file has room for."""
    torch.manual_seed(0)
    data = dataset()
    masked, counted = build_model("cenet", data).eval(), build_model("cenet", data, padding="counted").eval()
    for p in masked.parameters():
        torch.nn.init.normal_(p)  # also the biases, behind which zeros are seen
    counted.load_state_dict(masked.state_dict())
    batch = data.train.batch([int(data.train.lengths[:, 1:].sum(1).argmin())])  # the shortest
    room = [max(getattr(split, name).shape[1] for split in data.splits.values()) for name in ("audio", "vision")]
    filled = {"lengths": torch.tensor([[batch.lengths[0, 0], *room]])}
    for name, steps, n in zip(("audio", "vision"), room, batch.lengths[0, 1:], strict=True):
        filled[name] = torch.nn.functional.pad(getattr(batch, name)[:, :n], (0, 0, 0, steps - n))
    close(counted(batch).prediction, masked(batch._replace(**filled)).prediction)
    assert (counted(batch).prediction - masked(batch).prediction).abs().max() > 1e-5


def test_rates_and_decays(encoder):
    """Biases and norms do not decay, save for those of the enhancement."""
    data, network, _ = encoded(encoder, bert="finetune", eps=1e-3)
    config = TrainConfig(lr=1.0, lr_encoder=2.0, weight_decay=0.1)
    optimiser = CENet.Procedure(network, data, config).optimisers["main"]
    of = {id(p): (g["lr"], g["weight_decay"]) for g in optimiser.param_groups for p in g["params"]}
    seen = {(name.split(".")[0], p.ndim > 1): of[id(p)] for name, p in network.named_parameters()}
    assert seen == {
        ("text_encoder", True): (2.0, 0.1),
        ("text_encoder", False): (2.0, 0.0),
        ("enhance", True): (1.0, 0.1),
        ("enhance", False): (1.0, 0.1),
        ("head", True): (1.0, 0.1),
        ("head", False): (1.0, 0.0),
    }
    assert optimiser.defaults["eps"] == 1e-3
    assert isinstance(optimiser, torch.optim.Adam)
    assert not isinstance(optimiser, torch.optim.AdamW)


@pytest.mark.parametrize(
    ("warm_up", "expected"), [(0.0, [1] * 11), (0.4, [0, 1 / 4, 2 / 4, 3 / 4, 1, *np.arange(5, -1, -1) / 6])]
)
def test_the_rate_rises_over_a_share_of_the_steps_and_falls_to_0(warm_up, expected):
    data = dataset()
    network = build_model("cenet", data, warm_up=warm_up)
    procedure = CENet.Procedure(network, data, TrainConfig(lr=1.0, batch_size=4, epochs=2))  # 10 steps
    rates = [procedure.optimisers["main"].param_groups[0]["lr"]]
    for _ in range(10):
        procedure.step(data.train.batch([0]), "main")
        rates.append(procedure.optimisers["main"].param_groups[0]["lr"])
    np.testing.assert_allclose(rates, expected, atol=1e-7)


def test_a_share_is_below_1():
    with pytest.raises(ValueError, match=r"warm_up=1\.0: expected a share of the steps"):
        build_model("cenet", dataset(), warm_up=1.0)


def test_the_error_is_absolute_or_squared():
    data = dataset()
    for error, expected in (("absolute", lambda e: e.abs()), ("squared", lambda e: e * e)):
        network, batch = build_model("cenet", data, error=error).eval(), data.train.batch(range(5))
        output = network(batch)
        close(network.loss(batch, output)["total"], expected(output.prediction - batch.labels).mean())


def test_recipes_are_those_of_the_harness():
    of = {name: settings(recipe) for name, recipe in RECIPES.items()}
    assert {name: (r["lr"], r["weight_decay"], r["eps"], r["batch_size"]) for name, r in of.items()} == {
        "mosi": (1e-5, 1e-4, 3e-8, 64),
        "mosei": (1e-5, 1e-4, 1e-8, 64),
        "sims": (2e-6, 0.0, 2e-8, 32),
        "simsv2": (3e-5, 0.0, 3e-8, 64),
    }


def test_it_learns():
    data = load_dataset("planted?train=200&valid=60&test=60")
    settings = {
        "lr": 2e-3,
        "batch_size": 16,
        "epochs": 6,
        "weight_decay": 0.0,
        "clip": 2.0,
        "switches": {"text": "mean"},
    }
    result = fit("cenet", data, settings, seeds=[1])[0]
    constant = float((data.test.labels - data.train.labels.mean()).abs().mean())
    assert result.metrics["test"]["mae"] < 0.9 * constant
