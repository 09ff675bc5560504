"""Find, for each image of `convllava demo`, the first series whose sample a model answers rightly.

Pages that hold nothing but a number, because nothing else fitted, are passed over too.

python recipes/nano/demo_seeds.py nano
"""

import argparse
from itertools import count

from convllava import ask, load_pretrained
from convllava.cli.demo import CASES, LONGEST_ANSWER, draw_case, is_right


def main() -> None:
    """Print a seed for each case, to be written there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", default="nano", nargs="?")
    loaded = load_pretrained(parser.parse_args().model)
    for index, case in enumerate(CASES):
        for seed in count():
            example = draw_case(index, seed)
            answer = ask(*loaded, example.image, example.question, max_new_tokens=LONGEST_ANSWER)
            is_page = "page" not in example.facts or len(example.facts["page"].fields) > 1
            if is_page and is_right(example, answer):
                break
        print(f"{case.name}: seed {seed} ({example.question!r}: {answer.text!r})", flush=True)


if __name__ == "__main__":
    main()
