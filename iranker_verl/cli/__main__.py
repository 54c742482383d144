"""``python -m iranker_verl.cli``."""

from iranker_verl.cli import main

main()
