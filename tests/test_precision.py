"""Training in another arithmetic than float32."""

from __future__ import annotations

import pytest
import torch

from msa_lib.data import load_dataset
from msa_lib.models import MODELS
from msa_lib.train import TrainConfig, fit
from msa_lib.train.arithmetic import computing

PLACES = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)
SHORT = {"epochs": 1, "batch_size": 16, "lr": 1e-3}


def test_float32_means_it_and_leaves_the_process_as_it_was():
    before = [place.fp32_precision for place in PLACES], torch.get_num_threads()
    with computing(1, "float32"):
        assert [place.fp32_precision for place in PLACES] == ["ieee"] * 3  # cuDNN's own default is tf32
        with computing(1, "tf32"):
            assert [place.fp32_precision for place in PLACES] == ["tf32"] * 3
        assert [place.fp32_precision for place in PLACES] == ["ieee"] * 3
    assert ([place.fp32_precision for place in PLACES], torch.get_num_threads()) == before


@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_in_bfloat16_and_predicts_in_float32(name):
    data = load_dataset("planted?train=32&valid=16&test=16")
    config = SHORT | {"switches": MODELS[name].SMALL, "precision": "bf16", "epochs": 2}  # of ICCN the first is not kept
    run = fit(name, data, config, [1111])[0]
    assert run.status == "done"
    assert run.outputs["predictions"].dtype == "float32"
    assert {parameter.dtype for parameter in run.network.parameters()} == {torch.float32}


def test_bfloat16_rounds_the_step_and_no_more():
    data = load_dataset("planted?train=32&valid=16&test=16")
    switches = MODELS["amsgfn"].SMALL | {"dropout": 0.0}
    losses = [
        fit("amsgfn", data, SHORT | {"switches": switches, "precision": precision}, [1111])[0].history[0]["loss"][
            "task"
        ]
        for precision in ("float32", "bf16")
    ]
    assert 0 < abs(losses[0] - losses[1]) < 0.02 * losses[0]


def test_what_cannot_be_asked_for_is_refused_in_a_sentence():
    data = load_dataset("planted?train=32&valid=16&test=16")
    with pytest.raises(ValueError, match="precision='tf32' is a mode of CUDA devices; on cpu expected float32 or bf16"):
        fit("lmf", data, SHORT | {"precision": "tf32"}, [1111])
    with pytest.raises(ValueError, match="half"):
        fit("lmf", data, SHORT | {"precision": "half"}, [1111])
    with pytest.raises(ValueError, match="do not go together"):
        fit("lmf", data, SHORT | {"compiled": True, "stack": (1111, 1112)}, [1111])


def test_a_compiled_network_trains_as_the_plain_one(monkeypatch):
    """With the graph captured and run as it is: what inductor makes of it takes a minute, and is PyTorch's own."""
    modes = []

    def eager(self, **asked):
        modes.append(asked)
        torch.nn.Module.compile(self, **asked, backend="eager")

    monkeypatch.setattr(MODELS["lmf"], "compile", eager, raising=False)
    data = load_dataset("planted?train=32&valid=16&test=16")
    config = SHORT | {"switches": MODELS["lmf"].SMALL | dict.fromkeys(("dropout_t", "dropout_a", "dropout_v"), 0.0)}
    plain, compiled = (fit("lmf", data, config | {"compiled": c}, [1111])[0] for c in (False, True))
    assert modes == [{"fullgraph": True, "dynamic": True}]
    assert compiled.metrics == plain.metrics
    assert TrainConfig().compiled is False
