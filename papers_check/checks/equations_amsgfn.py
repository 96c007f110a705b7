"""The equations of AMSGFN that do nothing, or cannot be computed as printed: see `equations`."""

import numpy as np

from papers_check.checks.finding import Finding, new_finding

D = 32  # width of the toy vectors


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def normalised(x: np.ndarray) -> np.ndarray:
    """Unit vectors along the last axis."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def attention(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Scaled dot-product attention [L, d]; the projections are left out, they change nothing that is shown here."""
    return softmax(query @ key.T / np.sqrt(query.shape[-1])) @ value


def contrast(z_m: np.ndarray, z_n: np.ndarray, tau: float = 0.1) -> float:
    """Eq. 1, mean over i, for projected features [N, d]."""
    logits = normalised(z_m) @ normalised(z_n).T / tau
    return float(-np.log(np.diagonal(softmax(logits))).mean())


def selection() -> Finding | None:
    """Eq. 4: read as argmax it passes no gradient."""
    rng = np.random.default_rng(0)
    scores = softmax(rng.normal(size=(1000, 3)))
    moved = softmax(np.log(scores) + 1e-6 * rng.normal(size=scores.shape))
    changed = int((scores.argmax(1) != moved.argmax(1)).sum())
    if changed:
        return None
    return _amsgfn(
        "arithmetic-eq4-no-gradient",
        "Eq. 4",
        "the model dynamically determines the dominant mode of the current sample based on the maximum contribution",
        f"read as argmax: {changed} of 1,000 choices change when the scores move by 0.0001 %, so the derivative is 0",
        "a hard choice, no estimator named",
        "The equation prints arg without the maximum. With it, the choice is piecewise constant, so the scorer "
        "learns through the weights of Eq. 5 only, unless an estimator is used; none is named.",
    )


def weighting() -> Finding | None:
    """Eq. 5 multiplies by weights that sum to one: every feature shrinks, on average to a third."""
    rng, L = np.random.default_rng(1), 20
    s = softmax(rng.normal(size=(1000, 3)))
    X = rng.normal(size=(2, L, D)) * 3
    plain = softmax(X[0] @ X[1].T / np.sqrt(D))
    shrunk = softmax((X[0] / 3) @ (X[1] / 3).T / np.sqrt(D))
    if s.max() > 1 or abs(s.mean() - 1 / 3) > 1e-12:
        return None
    return _amsgfn(
        "arithmetic-eq5-weights-shrink",
        "Eq. 5",
        "To further enhance the role of the dominant mode",
        f"mean weight {s.mean():.4f}, largest of 3,000 {s.max():.2f}, never above 1; at s = 1/3 query and key each "
        f"shrink threefold, and the largest attention weight over {L} steps falls from {plain.max(1).mean():.2f} to "
        f"{shrunk.max(1).mean():.2f} (even: {1 / L:.2f})",
        "no weight is above 1",
        "The three weights sum to 1, so undecided scores divide all features by 3 and their products in attention by "
        "9, which flattens it; in relation to the others the dominant one is enhanced.",
    )


def cited_loss() -> Finding | None:
    """Eq. 1 is not the NT-Xent loss it is named after."""
    rng, n, tau = np.random.default_rng(2), 16, 0.1
    base = rng.normal(size=(n, D))
    z_m, z_n = base + 0.5 * rng.normal(size=(n, D)), base + 0.5 * rng.normal(size=(n, D))
    both = normalised(np.concatenate([z_m, z_n]))
    sim = both @ both.T / tau
    np.fill_diagonal(sim, -np.inf)
    positive = np.concatenate([np.arange(n, 2 * n), np.arange(n)])
    full = float(-np.log(softmax(sim)[np.arange(2 * n), positive]).mean())
    printed = (contrast(z_m, z_n, tau) + contrast(z_n, z_m, tau)) / 2
    if abs(full - printed) < 1e-6:
        return None
    return _amsgfn(
        "conflict-eq1-named-loss",
        "Eq. 1",
        "we use the NT-Xent loss [15] as the loss function for contrastive learning",
        f"on the same {n} pairs: {printed:.3f} as printed ({n} candidates), {full:.3f} for NT-Xent ({2 * n - 1} "
        "candidates)",
        "the equation is another loss",
        "NT-Xent of the cited work compares each view with all 2N - 1 other views of the batch, its own side included; "
        "Eq. 1 compares with the N vectors of the other modality only.",
    )


def one_output() -> Finding | None:
    """Eqs. 15 and 16 give one number per time step."""
    rng, L = np.random.default_rng(4), 20
    Q, X = rng.normal(size=(L, D)), rng.normal(size=(L, D))
    y = attention(Q, X, X) @ rng.normal(size=(D, 1))
    if y.shape != (L, 1):
        return None
    readings = {"mean": y.mean(), "first step": y[0, 0], "last step": y[-1, 0]}
    return _amsgfn(
        "missing-eq16-readout",
        "Eqs. 15 and 16",
        "is input into the multi-layer perceptron to obtain the final prediction result",
        f"for L = {L} steps y has {y.shape[0]} values, the label one; on one random input: "
        + ", ".join(f"{name} {value:.2f}" for name, value in readings.items()),
        "open as printed",
        "The query is a sequence, so attention returns a sequence and the MLP one number per step. How they become one "
        "prediction (mean, first step, pooling before) is not said, and changes the result.",
    )


def correlation_loss() -> Finding | None:
    """Eq. 18: L_NCE is not defined, and its arguments are sequences of different length."""
    rng, n, L = np.random.default_rng(5), 16, 20
    fused, other = rng.normal(size=(2, n, L, D)) + rng.normal(size=(n, 1, D))
    f, g = fused.mean(1), other.mean(1)
    info = contrast(f, g)
    score = normalised(f) @ normalised(g).T
    off = score[~np.eye(n, dtype=bool)]
    binary = float(np.log1p(np.exp(-np.diagonal(score))).mean() + np.log1p(np.exp(off)).mean())
    steps = float(np.mean([contrast(fused[:, k], other[:, k]) for k in range(L)]))
    if np.ptp([info, binary, steps]) < 0.1:
        return None
    return _amsgfn(
        "missing-eq18-nce",
        "Eq. 18",
        "represents the contrastive loss function based on noise contrast estimation",
        f"on the same features: {info:.2f} (InfoNCE of mean-pooled vectors), {steps:.2f} (InfoNCE per step), "
        f"{binary:.2f} (binary noise-contrastive estimation)",
        "open as printed",
        "Score function, pooling of the two sequences, projection, negatives, temperature and direction are all open, "
        "so L_cor and its weight beta cannot be computed from the paper.",
    )


def time_order() -> Finding | None:
    """Eqs. 5 to 16 have no positions: shuffling the steps of a modality changes nothing."""
    rng, L = np.random.default_rng(6), 20
    X = rng.normal(size=(3, L, D))
    W, V = rng.normal(size=(D, D)) / np.sqrt(D), rng.normal(size=2 * D) / np.sqrt(D)

    def predict(p: np.ndarray, a1: np.ndarray, a2: np.ndarray) -> float:
        x = p
        for _ in range(2):
            tmp = attention(x, x, x) + x
            aux = attention(x, a1, a1) + attention(x, a2, a2)
            gate = 1 / (1 + np.exp(-(np.concatenate([tmp, aux], -1) @ V)))[:, None]
            hat = tmp + gate * aux
            centred = hat - hat.mean(-1, keepdims=True)
            x = np.tanh(centred / centred.std(-1, keepdims=True) @ W) + hat
        query = attention(p, p, p) + p
        return float((attention(query, x, x) @ V[:D]).mean())

    before = predict(*X)
    after = predict(*(x[rng.permutation(L)] for x in X))
    other = predict(*(x + 0.1 * rng.normal(size=x.shape) for x in X))
    if abs(before - after) > 1e-9 or abs(before - other) < 1e-4:
        return None
    return _amsgfn(
        "arithmetic-order-blind",
        "Eqs. 5 to 16; section 2.5.1",
        "represents the self-attention operation, which is used to capture the temporal dependencies",
        f"shuffling the steps of all three modalities leaves the (mean) prediction equal to 9 digits; noise of "
        f"0.1 changes it by {abs(before - other):.2f}",
        "order-blind as printed",
        "No position enters any equation, and attention treats its input as a set: for audio and vision the order of "
        "the frames cannot matter. (BERT's text vectors carry their own positions.)",
    )


def _amsgfn(name: str, where: str, quote: str, computed: str, verdict: str, explanation: str) -> Finding:
    return new_finding("equation", f"amsgfn-{name}", where, quote, computed, verdict, explanation)


EQUATIONS = (
    selection,
    weighting,
    cited_loss,
    one_output,
    correlation_loss,
    time_order,
)
