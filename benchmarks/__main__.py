"""``make bench`` and ``make bench-quick``: which benchmark is wanted?"""

from __future__ import annotations

import sys

from benchmarks import compare, quick

if __name__ == "__main__":
    if "--quick" in sys.argv[1:]:
        quick.main()
    else:
        compare.main()
