"""Schedules that models share: the learning rate rises in the first epochs and falls along a cosine."""

from __future__ import annotations

import math


def described_rate(epoch: int, rising: int, total: int) -> float:
    """Share of the full rate in an epoch counted from 1: full at the last rising one, 0 only after the last of all."""
    if epoch <= rising:
        return epoch / rising
    return (1 + math.cos(math.pi * (epoch - rising) / (total + 1 - rising))) / 2


def released_rate(epoch: int, rising: int, total: int) -> float:
    """One epoch later: 0 in the first, full in two."""
    if epoch <= rising + 1:
        return (epoch - 1) / rising
    return (1 + math.cos(math.pi * (epoch - rising - 2) / max(1, total - rising))) / 2


RATE = {"trained": described_rate, "idle": released_rate}
