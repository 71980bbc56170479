"""Training: from a dataset version to a run and its bundle. The only part that knows Lightning."""

import os

# OpenMP's threads wait for each other spinning, unless told otherwise before torch is loaded. On two cores
# with another busy process that made training eight times slower; alone it makes no difference.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
