"""Compare the held-out samples with the recorded digests, or record them again.

python benchmarks/held_out.py            # compares all; exit code 1 if a sample differs
python benchmarks/held_out.py --write    # after a change that is meant to change a benchmark
"""

import argparse
import json
import sys

from convllava.eval.benchmarks.synthetic import NUM_HELD_OUT, SYNTHETIC
from convllava.eval.held_out import RECORD, differences, draw_record


def main() -> int:
    """Compare or write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--write", action="store_true", help="replace the recorded digests")
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
        texts, pixels = (sum(getattr(each, aspect) for each in found) for aspect in ("texts", "pixels"))
        print(f"{name}: {NUM_HELD_OUT - len(found)} as recorded, {texts} with other texts, {pixels} with other pixels")
    return int(changed)


if __name__ == "__main__":
    sys.exit(main())
