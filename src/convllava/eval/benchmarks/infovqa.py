"""InfographicVQA, validation split (arXiv 2104.12756); the answers of the test split are not public.

The figure is ANLS, as for DocVQA.
"""

from .docvqa import DocVQA


class InfoVQA(DocVQA):
    """2801 questions about infographics."""

    name = "infovqa"
    title = "InfoVQA val"
    file = "InfoVQA_VAL"
    hub = "lmms-lab/DocVQA"
    hub_config = "InfographicVQA"
    size = 2801
    known_md5 = frozenset({"2342e9c225222f0ef4dec545ebb126fe"})
