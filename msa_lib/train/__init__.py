"""Training: the one loop (`loop`), what a recipe may change of it (`procedure`), and what a killed run resumes from."""

from msa_lib.train.loop import (
    VERSION,
    RunResult,
    TrainConfig,
    TrainingFailed,
    check_device,
    evaluate_split,
    fit,
    mean_loss,
    predict,
    scores,
)

__all__ = ["VERSION", "RunResult", "TrainConfig", "TrainingFailed", "check_device", "evaluate_split", "fit",
           "mean_loss", "predict", "scores"]  # fmt: skip
