"""`python -m convdsl`."""

import sys

from convdsl.cli import main

sys.exit(main())
