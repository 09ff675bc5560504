"""Digests of the held-out samples: compare the recorded ones with the samples drawn here, or record them again.

python benchmarks/held_out.py            # compares all; exit code 1 if a sample differs
python benchmarks/held_out.py --write    # after a change that is meant to change a benchmark
"""

import argparse
import json
import sys

from convllava.eval.benchmarks.synthetic import NUM_HELD_OUT, SYNTHETIC
from convllava.eval.held_out import RECORD, differences, draw_record


def main() -> int:
    """Compare or record the digests."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--write", action="store_true", help="record the digests of the samples drawn here")
    datasets = {name: benchmark.dataset() for name, benchmark in SYNTHETIC.items()}
    if options.parse_args().write:
        record = draw_record(datasets, lambda name: print(f"drawn: {name}", flush=True))
        RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {RECORD}")
        return 0
    changed = False
    for name, dataset in datasets.items():
        found = differences(name, dataset, range(NUM_HELD_OUT))
        changed = changed or bool(found)
        texts, pixels = (sum(getattr(own, what) for own in found) for what in ("texts", "pixels"))
        print(f"{name}: {NUM_HELD_OUT - len(found)} as on record, {texts} other texts, {pixels} other pixels")
    return int(changed)


if __name__ == "__main__":
    sys.exit(main())
