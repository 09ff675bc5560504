"""Cost of images: parameters, visual tokens, FLOPs, memory and time; and the image size that fits a budget."""

from .budget import SHARE_FOR_ANSWERS, context_of, tokens_in_context, tokens_in_time
from .calibration import Calibration, load_calibration, save_calibration
from .counting import COUNTING_RULES, Cost, total
from .model_cost import DEFAULT_TEXT_TOKENS, ModelCost, model_cost
from .policies import Policy, SizeChoice, allows_auto, choose_size, policies

__all__ = [
    "COUNTING_RULES",
    "DEFAULT_TEXT_TOKENS",
    "SHARE_FOR_ANSWERS",
    "Calibration",
    "Cost",
    "ModelCost",
    "Policy",
    "SizeChoice",
    "allows_auto",
    "choose_size",
    "context_of",
    "load_calibration",
    "model_cost",
    "policies",
    "save_calibration",
    "tokens_in_context",
    "tokens_in_time",
    "total",
]
