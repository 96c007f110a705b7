"""The registry of models, and `build_model`.

A model is a class with a frozen dataclass `Config` (its switches, the paper's values as defaults), made from
(dataset, config): it reads feature sizes, available modalities and the label scale from the data. Calling it on a
`Batch` gives an `Output`; `loss(batch, output)` gives the named terms and their `total`. `RECORD` names the extras
worth storing with a run; `VARIANTS` are its named switch settings (ablations and controls). One that
is trained in a way of its own names its `Procedure` (procedure.py); `VERSION` (1 if absent) rises with any change of a
default or of what the code makes of it, for stored runs are told apart by it.
"""

from __future__ import annotations

import warnings

from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its progress bars ask for notebook widgets at import
    import transformers.optimization  # noqa: F401

from msa_lib.data import Dataset
from msa_lib.models.almt import ALMT
from msa_lib.models.amsgfn import AMSGFN
from msa_lib.models.cenet import CENet
from msa_lib.models.dashfusion import DashFusion
from msa_lib.models.dib import DIB
from msa_lib.models.dlf import DLF
from msa_lib.models.dmd import DMD
from msa_lib.models.dsrf import DSRF
from msa_lib.models.dtn import DTN
from msa_lib.models.fdmer import FDMER
from msa_lib.models.iccn import ICCN
from msa_lib.models.kuda import KuDA
from msa_lib.models.lmf import LMF
from msa_lib.models.mfn import MFN
from msa_lib.models.mim import MIM
from msa_lib.models.misa import MISA
from msa_lib.models.mmim import MMIM
from msa_lib.models.mods import MODS
from msa_lib.models.msg import MSG
from msa_lib.models.mult import MulT
from msa_lib.models.parts.layers import Output
from msa_lib.models.prisa import PriSA
from msa_lib.models.self_mm import SelfMM
from msa_lib.models.tfn import TFN
from msa_lib.switches import checked

__all__ = ["MODELS", "Output", "build_model"]

MODELS: dict[str, type] = {
    "amsgfn": AMSGFN,
    "dsrf": DSRF,
    "almt": ALMT,
    "cenet": CENet,
    "dashfusion": DashFusion,
    "dib": DIB,
    "dlf": DLF,
    "dmd": DMD,
    "dtn": DTN,
    "fdmer": FDMER,
    "iccn": ICCN,
    "kuda": KuDA,
    "lmf": LMF,
    "mfn": MFN,
    "mim": MIM,
    "misa": MISA,
    "mmim": MMIM,
    "mods": MODS,
    "msg": MSG,
    "mult": MulT,
    "prisa": PriSA,
    "self_mm": SelfMM,
    "tfn": TFN,
}


def build_model(name: str, dataset: Dataset, **switches) -> nn.Module:
    """The model `name` for `dataset`, its switches checked. Raises ValueError naming the right names or values."""
    if name not in MODELS:
        raise ValueError(f"No model {name!r}: expected one of {', '.join(MODELS)}.")
    return MODELS[name](dataset, checked(MODELS[name].Config, switches, f"{name} switch"))
