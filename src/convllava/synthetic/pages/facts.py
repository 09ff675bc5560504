"""Facts that a page shows, and the questions that people ask for them."""

import random
from typing import NamedTuple


class Topic(NamedTuple):
    """A kind of fact.

    Attributes:
        name: Key by which a page knows whether it shows such a fact.
        phrase: Noun phrase, such as "the total"; ``{}`` stands for the subject of a fact.
        questions: Questions in different wordings; ``{}`` stands for the subject of a fact.
    """

    name: str
    phrase: str
    questions: tuple[str, ...]


class Fact(NamedTuple):
    """A topic and its subject, such as the price of the milk.

    Attributes:
        topic: The topic.
        subject: The subject, or "" for a topic without one.
    """

    topic: Topic
    subject: str = ""

    @property
    def phrase(self) -> str:
        """The noun phrase for it."""
        return self.topic.phrase.format(self.subject)

    def question(self, rng: random.Random) -> str:
        """Ask for it in one of many wordings."""
        if rng.random() < 0.75:
            return rng.choice(self.topic.questions).format(self.subject)
        return rng.choice(_GENERIC).format(self.phrase)


def vary(rng: random.Random, question: str) -> str:
    """Return a question as people type it: at times contracted, in small letters or without a mark at its end."""
    kind = rng.random()
    if kind < 0.05 and question.startswith("What is "):
        return f"What's {question[8:]}"
    if kind < 0.08:
        return question[0].lower() + question[1:]
    return question.rstrip("?.") if kind < 0.11 else question


_GENERIC = (
    "What is {}?",
    "What is {}?",
    "Give {}.",
    "Tell me {}.",
    "Read {}.",
    "Find {}.",
    "What does the image give as {}?",
    "Can you tell me {}?",
    "Extract {}.",
)

LOCATE = (
    "Where is {}? Give its bounding box.",
    "Where is {}?",
    "Give the bounding box of {}.",
    "Locate {}.",
    "Find {} and give its box.",
    "What is the bounding box of {}?",
    "Provide the bounding box coordinates of {}.",
    "Where in the image is {}? Answer with a bounding box.",
)

NOT_SHOWN = "not shown"
"""Answer to a question for what an image does not show."""


def topic(name: str, phrase: str, *questions: str) -> Topic:
    """Return a topic, registered in ``TOPICS``."""
    found = TOPICS[name] = Topic(name, phrase, questions)
    return found


TOPICS: dict[str, Topic] = {}
"""Every topic by name."""

TOTAL = topic(
    "total",
    "the total",
    "What is the total?",
    "How much is the total?",
    "What is the total amount?",
    "How much is it in total?",
    "What does everything cost together?",
    "How much was it altogether?",
    "What is the grand total?",
    "What is the sum?",
    "How much has to be paid?",
)
SUBTOTAL = topic("subtotal", "the subtotal", "What is the subtotal?", "How much is the subtotal?", "Subtotal?")
TAX = topic(
    "tax", "the tax", "How much is the tax?", "What is the tax?", "How much tax is charged?", "What is the tax amount?"
)
DISCOUNT = topic("discount", "the discount", "How much is the discount?", "What is the discount?")
TIP = topic("tip", "the tip", "How much is the tip?", "What is the tip?")
CASH = topic(
    "cash", "the cash given", "How much cash was given?", "How much was paid in cash?", "What is the amount of cash?"
)
CHANGE = topic("change", "the change", "How much is the change?", "What is the change?", "How much change was given?")
SHOP = topic(
    "shop",
    "the name of the shop",
    "What is the name of the shop?",
    "Which shop is it from?",
    "What is the store called?",
    "Who is the seller?",
    "What is the name of the company?",
    "Which company issued it?",
    "Where was it bought?",
    "What is the name of the store?",
    "Which store is this from?",
    "What is the merchant name?",
    "Which business issued the {}?",
    "What is the store name?",
)
DATE = topic(
    "date",
    "the date",
    "What is the date?",
    "What is the date on the {}?",
    "What date is on the {}?",
    "What is the date of the {}?",
    "When is the {} from?",
    "Which date does the {} show?",
    "What date is shown?",
)
TIME = topic(
    "time",
    "the time",
    "What time is it?",
    "What is the time?",
    "What time is shown?",
    "At what time?",
    "Which time is given?",
)
DUE = topic(
    "due",
    "the due date",
    "When is it due?",
    "When is the invoice due?",
    "What is the due date?",
    "By when must it be paid?",
    "Until when is it payable?",
)
NUMBER = topic(
    "number",
    "the number of the {}",
    "What is the {} number?",
    "What is the number of the {}?",
    "Which number does the {} have?",
    "What is the {} no.?",
)
PRICE = topic(
    "price",
    "the price of {}",
    "How much is the {}?",
    "How much is {}?",
    "What does the {} cost?",
    "What is the price of the {}?",
    "What is the price of {}?",
    "How much does {} cost?",
    "How much for the {}?",
    "What do you pay for {}?",
)
QUANTITY = topic(
    "quantity",
    "the quantity of {}",
    "How many {} are listed?",
    "What is the quantity of {}?",
    "How many of {} were bought?",
    "What is the qty of {}?",
    "How many units of {}?",
)
COLUMN = topic(
    "cell",
    "the {}",
    "What is the {}?",
    "Read the {}.",
    "What does the table give for the {}?",
    "Look up the {}.",
)
ITEM_AT = topic(
    "item",
    "the {}",
    "What is the {}?",
    "Which is the {}?",
    "Name the {}.",
    "What is the name of the {}?",
)
COUNT = topic("count", "the number of {}", "How many {} are there?", "How many {} are listed?", "Count the {}.")
LABELED = topic(
    "labeled",
    "the {}",
    "What is the {}?",
    "What does it say for {}?",
    "What is given as {}?",
    'What is written next to "{}"?',
    "What is the value of {}?",
    "Which {} is given?",
    "{}?",
)
TITLE = topic(
    "title",
    "the title",
    "What is the title?",
    "What is the heading?",
    "What does the heading say?",
    "What is written at the top?",
    "What is the title of the {}?",
    "What is the headline?",
)
CUSTOMER = topic(
    "customer",
    "the name of the customer",
    "Who is the customer?",
    "Who is it billed to?",
    "To whom is the {} addressed?",
    "What is the name of the customer?",
    "Who has to pay?",
)
SENDER = topic("sender", "the sender", "Who sent it?", "Who is it from?", "Who is the sender?", "Who signed it?")
RECIPIENT = topic(
    "recipient", "the recipient", "Who is it for?", "Who is the recipient?", "To whom is it addressed?", "Who gets it?"
)
PERSON = topic(
    "person",
    "the name",
    "What is the name?",
    "Whose name is on the {}?",
    "What name is on the {}?",
    "What is the name on the {}?",
    "What is the person called?",
)
JOB = topic(
    "job",
    "the job title",
    "What is the job title?",
    "What does this person do?",
    "What is the position of this person?",
)
COMPANY = topic(
    "company", "the company", "Which company is named?", "What is the company?", "Where does this person work?"
)
PHONE = topic(
    "phone",
    "the phone number",
    "What is the phone number?",
    "What is the telephone number?",
    "Which number can one call?",
    "What number is given to call?",
)
EMAIL = topic(
    "email", "the e-mail address", "What is the e-mail address?", "What is the email?", "Which email address is given?"
)
SITE = topic("site", "the web address", "What is the website?", "Which website is given?", "What is the web address?")
STREET = topic("street", "the street address", "What is the street?", "What is the address?", "In which street is it?")
CITY = topic("city", "the city", "Which city is it?", "What is the city?", "Which town is given?")
HOURS = topic("hours", "the opening hours", "When is it open?", "What are the opening hours?", "What are the hours?")
SAYS = topic(
    "says",
    "the text of the {}",
    "What does the {} say?",
    "What is written on the {}?",
    "What does it say on the {}?",
    "Read the {}.",
    "What text is on the {}?",
)
SEAT = topic("seat", "the seat", "What is the seat?", "Which seat is it?", "What is the seat number?")
BUTTON = topic(
    "button",
    "the button {}",
    "What does the {} button say?",
    "What is written on the {} button?",
    "Read the {} button.",
)
CHECKED = topic(
    "checked", "the checked option", "Which option is checked?", "Which box is ticked?", "What is selected?"
)
