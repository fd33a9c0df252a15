"""`python -m ape_stream` is `ape-stream`."""

import sys

from ape_stream.cli.main import main

sys.exit(main())
