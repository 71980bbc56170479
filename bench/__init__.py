"""Speed and memory of plantml, as ratios between things that are measured in one run.

A figure alone says more of the machine than of the program. So every figure here has another one beside it,
taken in turns with it on the same cores; a row's ratio is the median over the rounds.
"""
