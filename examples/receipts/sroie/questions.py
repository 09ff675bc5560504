"""Questions about receipts: one fixed wording for the test, many for training."""

FIXED_QUESTIONS = {
    "company": "What is the name of the company?",
    "date": "What is the date?",
    "address": "What is the address?",
    "total": "What is the total?",
}
"""Questions of the test, the same for every receipt."""

READ_LINE = "Read the text."
"""Question of the test about a line."""

FIELD_QUESTIONS: dict[str, tuple[str, ...]] = {
    "company": (
        FIXED_QUESTIONS["company"],
        "Which company is it?",
        "Who is it from?",
        "Which shop is it from?",
        "Who sells this?",
        "Whose receipt is this?",
        "Give the name of the shop.",
    ),
    "date": (
        FIXED_QUESTIONS["date"],
        "When was it issued?",
        "What day is on it?",
        "Which date does it show?",
        "Give the date of the receipt.",
        "On which day was this bought?",
    ),
    "address": (
        FIXED_QUESTIONS["address"],
        "Where is the shop?",
        "Give the address of the company.",
        "Which address does it show?",
        "Read the address.",
    ),
    "total": (
        FIXED_QUESTIONS["total"],
        "How much is it in all?",
        "What is the total amount?",
        "How much is to be paid?",
        "Give the total.",
        "What does all of it cost?",
        "Tell me the amount due.",
    ),
}
"""Wordings for training; the test's wording is one of them."""

LINE_QUESTIONS = (READ_LINE, "What does it say?", "Transcribe the text.", "What is written here?", "Read this.")

PAGE_QUESTIONS = (
    "Transcribe the page.",
    "Read all the text.",
    "Write down everything that is written.",
    "Transcribe all text, line by line.",
)
