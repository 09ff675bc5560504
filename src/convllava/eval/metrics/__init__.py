"""Metrics: pure functions of predictions and truths, by the rules of the kits that published figures come from.

``profile="paper"`` follows VLMEvalKit of April 2024, which the paper's authors ran (and, for boxes, their own
script); ``profile="current"`` follows VLMEvalKit of August 2026. Nothing here imports torch.
"""

from .boxes import box_iou, grounding_hit, parse_box
from .choice import extract_choice
from .circular import circular_scores
from .mme import mme_scores
from .mmvet import mmvet_scores
from .pope import pope_scores
from .profiles import PROFILES, Profile
from .text import anls, character_error_rate, edit_distance, exact_match
from .vqa import normalize_vqa_answer, vqa_accuracy
from .yes_no import extract_yes_no

__all__ = [
    "PROFILES",
    "Profile",
    "anls",
    "box_iou",
    "character_error_rate",
    "circular_scores",
    "edit_distance",
    "exact_match",
    "extract_choice",
    "extract_yes_no",
    "grounding_hit",
    "mme_scores",
    "mmvet_scores",
    "normalize_vqa_answer",
    "parse_box",
    "pope_scores",
    "vqa_accuracy",
]
