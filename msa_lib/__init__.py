"""A thin library for reproducing multimodal sentiment analysis (MSA) papers: data, models, one training loop, runs.

The shape alphabet, used in every module:

    B  batch             T  time (steps)        D  raw feature size      d  model width
    M  modalities = 3, in the fixed order text, audio, vision
    K  capsules          F  factors = 4 (emotion, context, ambiguity, noise)
    S  stacked seeds     N  samples of a split

What the papers print, and every judgement of it, lives in `papers_check`; only `study` knows it here.
"""

MODALITIES = ("text", "audio", "vision")

__version__ = "0.1.0"
