"""`python -m plantml` is `plantml`."""

from plantml.cli.app import main

main()
