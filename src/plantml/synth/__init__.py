"""Photos of plants that no one took, with labels, boxes and faults that are known.

For demonstrations, tests and scale benchmarks. A photo is a pure function of seed, classes, size and index.

How hard it is, measured on the twelve default classes with 1,920 photos to learn from and 960 of other
plants: mean and deviation of the three colours tell 0.13 of them right (logistic regression; chance is 0.08),
a linear probe on a frozen EfficientNet-Lite0 0.70, the same network fine-tuned for six epochs 0.94. Most
errors are leaves with less than 3 % of their surface sick, which are taken for healthy.
"""

from plantml.synth.defects import FAULTS
from plantml.synth.scene import Box, SynthPhoto, render
from plantml.synth.spec import DEFAULT_CLASSES, LOOKS, SynthSpec
from plantml.synth.write import SynthSummary, write

__all__ = [
    "DEFAULT_CLASSES",
    "FAULTS",
    "LOOKS",
    "Box",
    "SynthPhoto",
    "SynthSpec",
    "SynthSummary",
    "render",
    "write",
]
