"""`python -m worker.cli` is `shoal`."""

from worker.cli import main

main()
