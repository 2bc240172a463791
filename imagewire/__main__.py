"""`python -m imagewire` is the command line."""

from imagewire.cli import main

main()
