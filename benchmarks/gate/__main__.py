"""The command; `benchmarks.gate.command` does the work."""

import sys

from benchmarks.gate.command import main

if __name__ == "__main__":
    sys.exit(main())
