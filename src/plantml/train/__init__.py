"""Training: from a dataset version to a run and its bundle. Only this package imports Lightning."""

import os

from plantml.callable_package import callable_package

# By default OpenMP threads spin while they wait. This must be set before torch is imported. On two cores
# shared with another busy process, spinning made training eight times slower; alone it makes no difference.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

callable_package(__name__)
