"""``python -m maskwright`` is the ``maskwright`` command."""

import sys

from maskwright.cli.main import main

sys.exit(main())
