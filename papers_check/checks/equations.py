"""Printed equations that do nothing, do the opposite of their text, or cannot be computed: shown by computing them.

Each function evaluates an equation as printed on a few random vectors and reports only if the numbers show the defect,
so a corrected equation would fall silent. Nothing is trained, and no number depends on the seed beyond its last digit.
The equations of AMSGFN are in `equations_amsgfn`, those of DSRF here.
"""

import numpy as np

from papers_check.checks import label_counts as labels
from papers_check.checks.equations_amsgfn import EQUATIONS as AMSGFN
from papers_check.checks.equations_amsgfn import normalised, softmax
from papers_check.checks.finding import Finding, new_finding

D = 32  # width of the toy vectors
FACTORS = ("e", "c", "a", "n")  # emotion, context, ambiguity, noise


def findings() -> list[Finding]:
    """The equations of both papers that are in conflict with their text, or cannot be computed as printed."""
    return [found for equation in AMSGFN + DSRF if (found := equation()) is not None]


def examined() -> int:
    """How many equations or groups of equations were computed."""
    return len(AMSGFN + DSRF)


def squash(s: np.ndarray) -> np.ndarray:
    """Eq. 9, second half, over the last axis."""
    norm = np.linalg.norm(s, axis=-1, keepdims=True)
    return norm**2 / (1 + norm**2) * s / norm


def route(votes: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """Eqs. 8 to 10. votes [F, K, d] -> couplings [F, K], capsules [K, d]."""
    b = np.zeros(votes.shape[:2])
    for _ in range(iterations):
        c = softmax(b)
        u = squash(np.einsum("fk,fkd->kd", c, votes))
        b = b + np.einsum("fkd,kd->fk", votes, u)
    return c, u


def routing() -> Finding | None:
    """Eqs. 8 to 10: v_i has no index k, so every capsule receives the same sum."""
    rng, K = np.random.default_rng(0), 4
    v = rng.normal(size=(4, D))  # v_i = W_i r_i
    c, u = route(np.repeat(v[:, None], K, 1), iterations=3)
    spread, uniform = np.abs(u - u[0]).max(), np.abs(c - 1 / K).max()
    first = route(np.repeat(v[:, None], K, 1), iterations=1)[1]
    with_k = route(rng.normal(size=(4, K, D)), iterations=3)[1]
    if spread > 1e-12 or uniform > 1e-12:
        return None
    return _dsrf(
        "arithmetic-eq8-equal-capsules",
        "Eqs. 8 to 10",
        "v_i = W_i^{caps} r_i^m\nwe initialize coupling logits $b_{ik} = 0$ for all factor-capsule pairs",
        f"K = {K}, 3 iterations: capsules differ by {spread:.0f}, couplings are 1/K = {1 / K} throughout, and one "
        f"iteration gives the same capsules ({np.abs(first - u).max():.0f} apart); with votes v_ik they differ by "
        f"{np.abs(with_k - with_k[0]).max():.1f}",
        "as printed, every coupling stays at 1/K",
        "Starting from b_ik = 0, s_k = (1/K) sum of v_i is the same for every k, so the update adds the same number to "
        "every logit and the softmax stays 1/K, whatever the number of iterations. With one matrix per factor and "
        "capsule the capsules differ.",
    )


def unused_reconstruction() -> Finding | None:
    """Eqs. 11 to 16: the routed features enter a loss, and nothing else."""
    rng = np.random.default_rng(1)
    r = rng.normal(size=(3, 4, D))
    W_out = rng.normal(size=(3 * D, 7))

    def forward(W_caps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        h = np.stack([route(np.repeat((m @ W_caps)[:, None], 4, 1), 3)[1].ravel() for m in r])
        weights = softmax(-np.abs(r).mean(-1))  # any uncertainty that is a function of r
        fused = np.einsum("mf,mfd->md", weights, r).ravel()
        return h, softmax(fused @ W_out)

    (h_a, y_a), (h_b, y_b) = forward(rng.normal(size=(D, D))), forward(rng.normal(size=(D, D)))
    if np.abs(y_a - y_b).max() > 0:
        return None
    return _dsrf(
        "conflict-eq11-unused-reconstruction",
        "Eqs. 11 to 16, section 3.2 (iii)",
        "the reconstructed modality features are fused via the Uncertainty-aware Semantic Fusion Strategy",
        f"the same factors with two routing matrices: reconstructions differ by up to {np.abs(h_a - h_b).max():.1f}, "
        f"predictions by {np.abs(y_a - y_b).max():.0f}",
        "at inference nothing reads the reconstruction",
        "Eqs. 13 and 14 build the fused vector from the factors r, and Eq. 16 from those; the reconstruction h of Eq. "
        "11 occurs only in the loss of Eq. 12. In training that loss reaches the factors; at inference nothing reads "
        "what the routing makes.",
    )


def calibration() -> Finding | None:
    """Eq. 15 adds one number to all four uncertainties; softmax(-u) does not see it."""
    rng = np.random.default_rng(2)
    u = rng.uniform(0, 2, size=4)
    shift = 2 * rng.uniform(-1, 1)
    change = max(np.abs(softmax(-(u + lam * shift)) - softmax(-u)).max() for lam in (0.1, 1.0, 10.0))
    if change > 1e-12:
        return None
    return _dsrf(
        "arithmetic-eq15-calibration-cancels",
        "Eq. 15 with alpha^m = softmax(-u^m) and Eq. 13",
        "we refine each modality’s uncertainty vector using a cross-modal calibration term",
        "weights alpha for lambda = 0.1, 1, 10 are those for lambda = 0 to 12 digits",
        "the calibration leaves the weights as they were",
        "The added term has no factor index: the same number joins all four entries, and a softmax does not change "
        "when a constant is added. The calibration leaves the weights of Eq. 13 as they were; only the gate of Eq. 14 "
        "could see it.",
    )


def noise_loss(z: np.ndarray, tau: float = 0.1, text: bool = False) -> float:
    """Eq. 6 on noise vectors z [N, M, d], mean over anchors: as printed, or `text`, positives of the same modality."""
    n, m, _ = z.shape
    flat = normalised(z).reshape(n * m, -1)
    sim = flat @ flat.T / tau
    log_p = sim - np.log(np.exp(sim).sum(1, keepdims=True))  # over all (j, b), the anchor itself included
    sample, modality = np.repeat(np.arange(n), m), np.tile(np.arange(m), n)
    same_sample, same_modality = sample[:, None] == sample, modality[:, None] == modality
    positive = (same_modality & ~same_sample) if text else (same_sample & ~same_modality)
    return float(-(log_p * positive).sum() / positive.sum())


def noise_contrast() -> Finding | None:
    """Eq. 6 as printed rewards agreement of the modalities of a sample, the sentence above it the opposite."""
    rng, (n, m) = np.random.default_rng(3), (16, 3)
    per_modality = np.broadcast_to(np.eye(D)[:m], (n, m, D))
    per_sample = np.broadcast_to(np.eye(D)[:n, None], (n, m, D))
    free = rng.normal(size=(n, m, D))
    printed = [noise_loss(z) for z in (per_modality, per_sample, free)]
    if printed[0] < printed[1]:
        return None
    return _dsrf(
        "conflict-eq6-noise-contrast",
        "Eq. 6 and the sentence before it",
        "Each modality has its own unique noise representation while remaining consistent across samples of the same "
        "modality.",
        f"loss as printed (N = {n}, tau = 0.1): {printed[0]:.1f} for noise that is one vector per modality, as the "
        f"sentence asks; {printed[1]:.1f} for one vector per sample, shared by the modalities; {printed[2]:.1f} for "
        "random vectors",
        "text and equation conflict",
        "In both sums the numerator pairs modality m with another modality of the same sample i, so the loss pulls the "
        "modalities of a sample together; the sentence asks for agreement over samples within a modality. The two sums "
        "also have the same form. The denominator contains the anchor itself (j = i, b = m).",
    )


def noise_constant() -> Finding | None:
    """Eq. 6 read as its sentence says is smallest when noise is a constant that knows nothing of the sample."""
    rng, (n, m) = np.random.default_rng(4), (16, 3)
    constant = np.broadcast_to(np.eye(D)[:m], (n, m, D))
    by_text = noise_loss(constant, text=True)
    noisy = [noise_loss(constant + 0.1 * k * rng.normal(size=(n, m, D)), text=True) for k in (1, 2, 5)]
    if by_text > min(noisy):
        return None
    return _dsrf(
        "arithmetic-eq6-constant-noise",
        "Eq. 6",
        "The factor z_n is intended to absorb modality-specific noise or irrelevant details",
        f"loss in the sentence's sense: {by_text:.2f} for one constant per modality, {noisy[0]:.2f}, {noisy[1]:.2f}, "
        f"{noisy[2]:.2f} with more and more sample-specific content",
        "smallest for a constant",
        "A loss that asks for the same noise vector on all samples of a modality is smallest when the vector does not "
        "depend on the sample; such a factor has absorbed no noise of any sample.",
    )


def entropy_sign(sign: int = 1) -> Finding | None:
    """Eq. 17 adds the entropy to a loss that is minimised; `sign` is the one in front of it."""
    logits, rate = np.array([1.0, 0.5, 0.0]), 0.5
    p = softmax(logits)
    start = entropy(p)
    for _ in range(50):
        p = softmax(logits)
        gradient = -p * (np.log(p) + entropy(p))  # of the entropy with respect to the logits
        logits = logits - rate * sign * gradient
    end = entropy(softmax(logits))
    if end > start:
        return None
    return _dsrf(
        "conflict-eq17-entropy-sign",
        "Eq. 17 and section 3.6",
        "By incorporating entropy-based regularization, the model avoids overconfident predictions",
        f"50 gradient steps on + H(p): entropy falls from {start:.2f} to {end:.2f}, the largest probability rises from "
        f"{softmax(np.array([1.0, 0.5, 0.0])).max():.2f} to {softmax(logits).max():.2f}",
        "sign conflicts with the text",
        "The entropy stands in the loss with a plus sign, and losses are minimised: the term makes predictions more "
        "confident, where the text wants to avoid over-confidence.",
    )


def softmax_and_mae() -> Finding | None:
    """Eq. 16 and the cross-entropy task loss give classes; the tables print MAE, Corr and seven-class accuracy."""
    rng = np.random.default_rng(5)
    single = softmax(rng.normal(size=(100, D)) @ rng.normal(size=(D, 1)))
    values, counts = labels.load_values("mosi")
    perfect = float((counts * np.abs(values - np.rint(values))).sum() / counts.sum())
    if np.ptp(single) > 0:
        return None
    return _dsrf(
        "missing-eq16-softmax-mae",
        "Eq. 16, section 3.6; Tables 1 and 2",
        "is the standard cross-entropy loss\nMean Absolute Error (MAE), Pearson Correlation",
        f"with one output the softmax is {single.min():.0f} for every input; with seven classes a faultless "
        f"classifier has MAE {perfect:.3f} on CMU-MOSI",
        "how classes become a number is not said",
        "MAE and Corr need a real number per clip, softmax with cross-entropy gives class probabilities. The number of "
        "classes, and whether the score is the likeliest class or an expected value, is not said.",
    )


def ambiguity_entropy() -> Finding | None:
    """Eq. 5 maximises an entropy that, read as predictive, is also the uncertainty u_a."""
    rng, C = np.random.default_rng(6), 7
    logits = rng.normal(size=(20, C))
    before = entropy(softmax(logits))
    for _ in range(2000):
        p = softmax(logits)
        logits = logits - 0.5 * p * (np.log(p) + entropy(p)[:, None])  # a step up the entropy
    after = entropy(softmax(logits))
    if np.ptp(after) > 0.01 * np.ptp(before):
        return None
    return _dsrf(
        "arithmetic-eq5-ambiguity-entropy",
        "Eq. 5 and the definition of u_a^m",
        "we regularize z_a with an entropy maximization term\n"
        "u_a^m is defined as the entropy of predictions from r_a^m",
        f"u_a of 20 samples: {before.min():.2f} to {before.max():.2f} at first, {after.min():.2f} to "
        f"{after.max():.2f} after maximising (ln {C} = {np.log(C):.2f})",
        "one value for every clip, in one reading",
        "p(z_a) in Eq. 5 is not defined. If it is the prediction from z_a, its maximum makes the uncertainty u_a the "
        "same for every clip, and the ambiguity factor measures nothing.",
    )


def two_fusions() -> Finding | None:
    """Eqs. 13 and 14 define one symbol twice."""
    rng = np.random.default_rng(7)
    r, u = rng.normal(size=(4, D)), rng.uniform(0, 2, size=4)
    a = softmax(-u)
    thirteen = a @ r
    g = 1 / (1 + np.exp(-(0.5 * u[1] + 0.5 * u[2])))
    fourteen = r[0] + g * (r[1] + r[2])
    cosine = float(thirteen @ fourteen / np.linalg.norm(thirteen) / np.linalg.norm(fourteen))
    if np.allclose(thirteen, fourteen):
        return None
    return _dsrf(
        "conflict-eq13-two-fusions",
        "Eqs. 13 and 14",
        "The semantic-aware fused representation of modality m is obtained by reweighting the subspaces\n"
        "Additionally, to enhance stability and interpretability, we introduce a gated residual fusion mechanism",
        f"lengths {np.linalg.norm(thirteen):.1f} and {np.linalg.norm(fourteen):.1f}, cosine {cosine:.2f}",
        "one symbol, two values",
        "The fused vector of a modality is defined twice under one symbol, once with the noise factor and once "
        "without; which of them Eq. 16 reads is not said.",
    )


def independence() -> Finding | None:
    """Eq. 3: orthogonal vectors can be functions of each other."""
    rng = np.random.default_rng(8)
    z_e = rng.normal(size=(500, D))
    rotated = np.concatenate([-z_e[:, D // 2 :], z_e[:, : D // 2]], 1)  # a quarter turn, so invertible
    cosine = np.abs((normalised(z_e) * normalised(rotated)).sum(1)).max()
    back = np.concatenate([rotated[:, D // 2 :], -rotated[:, : D // 2]], 1)
    if cosine > 1e-12 or not np.array_equal(back, z_e):
        return None
    return _dsrf(
        "arithmetic-eq3-orthogonality",
        "Eq. 3",
        "we impose an orthogonality constraint by minimizing the mutual information between z_c and z_e",
        "z_c a quarter turn of z_e, 500 samples: every cosine is 0 to 12 digits, and z_e is recovered exactly from z_c",
        "orthogonality is not independence",
        "Two vectors can be orthogonal on every sample and still determine each other, so orthogonality does not make "
        "the mutual information small; Eq. 3 names no estimator and does not occur in Eq. 7.",
    )


def ambiguity_margin() -> Finding | None:
    """Eq. 4 is zero for an ambiguity factor that is a copy of the emotion factor."""
    rng = np.random.default_rng(9)
    z_e = rng.normal(size=(200, D))
    distance = 1 - (normalised(z_e) * normalised(-z_e)).sum(1)
    hinge = np.maximum(0, 1.0 - distance).max()
    if hinge > 0:
        return None
    return _dsrf(
        "arithmetic-eq4-ambiguity-margin",
        "Eq. 4",
        "To explicitly separate ambiguity from dominant sentiment, we adopt a margin-based contrastive objective",
        f"z_a = -z_e, cosine distance, margin 1: largest loss {hinge:.0f} on 200 samples",
        "met by a copy",
        "Distance from z_e does not separate content: the mirrored emotion vector is as far as can be and carries the "
        "same information. Metric and margin are not given, and gamma is used again in Eqs. 7 and 17.",
    )


def noise_norm() -> Finding | None:
    """softmax(-u) compares a vector norm with entropies and divergences."""
    rng, d = np.random.default_rng(10), 128
    others = np.array([0.2, 0.2, np.log(7)])  # two divergences and the largest entropy of seven classes
    norms = [float(np.linalg.norm(scale * rng.normal(size=d))) for scale in (1.0, 0.1, 0.0)]
    weights = [softmax(-np.append(others, norm))[3] for norm in norms]
    if weights[0] > 1e-3 or weights[2] < 0.25:
        return None
    return _dsrf(
        "arithmetic-noise-norm",
        "section 3.6, definition of u_n^m",
        "u_n^m is the norm of r_n^m , serving as a proxy for noise intensity",
        f"d = {d}: norm {norms[0]:.1f} gives the noise factor weight {weights[0]:.0e}, norm {norms[1]:.1f} weight "
        f"{weights[1]:.2f}, norm 0 weight {weights[2]:.2f}",
        "scales are not comparable",
        "A norm grows with the square root of the width while the other three entries stay below about 2, so the noise "
        "weight is either nearly 0 or, for a vanishing noise vector, among the largest.",
    )


def sensitivity() -> Finding | None:
    """u_e: a prediction from r_e does not change when r_a is perturbed; one from the fused vector does."""
    rng = np.random.default_rng(11)
    r_e, r_a, other = rng.normal(size=(3, D))
    W = rng.normal(size=(D, 7)) / np.sqrt(D)

    def divergence(before: np.ndarray, after: np.ndarray) -> float:
        p, q = softmax(before @ W), softmax(after @ W)
        return float((p * np.log(p / q)).sum())

    alone, fused = divergence(r_e, r_e), divergence(r_e + 0.5 * r_a, r_e + 0.5 * other)
    if alone > 0 or fused == 0:
        return None
    return _dsrf(
        "arithmetic-sensitivity",
        "section 3.6, definition of u_e^m",
        "computed via the KL divergence between predictions before and after perturbing r_a^m",
        f"divergence of predictions from r_e^m when r_a^m is exchanged: {alone:.0f}; of predictions from a vector that "
        f"holds both: {fused:.2f}",
        "zero in one reading",
        "r_e and r_a are two outputs of two encoders, so a prediction from r_e does not see r_a; which prediction is "
        "meant is not said.",
    )


def entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(p)).sum(-1)


def _dsrf(name: str, where: str, quote: str, computed: str, verdict: str, explanation: str) -> Finding:
    return new_finding("equation", f"dsrf-{name}", where, quote, computed, verdict, explanation)


DSRF = (
    routing,
    unused_reconstruction,
    calibration,
    noise_contrast,
    noise_constant,
    entropy_sign,
    softmax_and_mae,
    ambiguity_entropy,
    two_fusions,
    independence,
    ambiguity_margin,
    noise_norm,
    sensitivity,
)
