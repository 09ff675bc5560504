"""Layouts of invoices, letters and business cards."""

import random

from . import names, text
from .layout_rows import (
    PHONE,
    SELLER,
    TOTAL,
    LayoutContext,
    article_row,
    articles,
    divider,
    how_many,
    money_writer,
    prices,
    title_row,
)
from .typesetting import Cell, Fact, Row
from .words import any_word

_INVOICE_NUMBER = Fact("the invoice number", ("What is the number of the invoice?", "Which invoice is it?"))
_INVOICED = Fact("the date of the invoice", ("When was it issued?", "Which date does it show?"))
_DUE = Fact("the due date", ("When is it due?", "Until when is it to be paid?"))
_CUSTOMER = Fact("the name of the customer", ("Who is it for?", "Who is to pay?", "To whom is it billed?"))
_WRITER = Fact("the name of the writer", ("Who wrote the letter?", "Who is it from?", "Who signed it?"))
_READER = Fact("the name of the recipient", ("Who is it for?", "To whom is the letter?"))
_WRITTEN = Fact("the date", ("When was the letter written?", "Which date does it show?"))
_SUBJECT = Fact("the subject", ("What is it about?", "What does the subject line say?"))
_HOLDER = Fact("the name", ("Whose card is it?", "Who gave this card?"))
_POSITION = Fact("the job title", ("What is this person's job?", "What does this person do?"))
_COMPANY = Fact("the company", ("Which company is named?", "Where does this person work?"))
_EMAIL = Fact("the e-mail address", ("Which e-mail address is given?",))
_SITE = Fact("the web address", ("Which site is given?",))
_STREET = Fact("the street", ("What is the address?", "In which street is it?"))

_POSITIONS = (
    "Accountant Architect Buyer Chef Designer Director Editor Engineer Florist Lawyer Manager Nurse Owner Pilot Sales "
    "Secretary Teacher Translator"
).split()
_WORDS_A_LINE = (2, 3, 4)


def invoice(rng: random.Random, context: LayoutContext) -> list[Row]:
    """Write an invoice: sender and customer, number and dates, articles, and their correct sum."""
    money = money_writer(rng)
    head = [
        title_row(rng, names.shop(rng, context.split), SELLER),
        _labeled(rng.choice(("Invoice", "Invoice No", "INVOICE")), text.code(rng, context.split), _INVOICE_NUMBER),
        *_some(rng, max(0, context.rows - 6), _invoice_lines(rng, context)),
    ]
    costs = prices(rng, context.rows - len(head) - 3)
    sold = [article_row(context, name, money(price)) for name, price in articles(rng, context, costs)]
    label = rng.choice(("Total", "Total due", "Amount due", "To be paid"))
    total = Row((Cell(label), Cell(money(sum(costs)), TOTAL)), "spread", bold=True)
    return [*head, divider(rng), *sold, divider(rng), total]


def letter(rng: random.Random, context: LayoutContext) -> list[Row]:
    """Write a letter: date and subject where there is room, a salutation, lines of text, a name at the end."""
    reader, writer = names.person(rng, context.split), names.person(rng, context.split)
    head = [Row((Cell(text.date(rng, context.split), _WRITTEN),), rng.choice(("left", "spread")))]
    if context.rows >= 7 and rng.random() < 0.6:
        subject = " ".join(any_word(rng, context.split) for _ in range(rng.choice((1, 2)))).capitalize()
        head.append(Row((Cell(subject, _SUBJECT),), bold=True))
    greeting = Row((Cell(rng.choice(("Dear", "Hello", "To"))), Cell(reader, _READER)))
    body = [_line(rng, context) for _ in range(how_many(rng, context.rows - len(head) - 4))]
    closing = Row((Cell(rng.choice(("Yours,", "Best wishes,", "Kind regards,", "Sincerely,"))),))
    gap = Row()
    return [*head, gap, greeting, *body, gap, closing, Row((Cell(writer, _WRITER),), bold=rng.random() < 0.3)]


def business_card(rng: random.Random, context: LayoutContext) -> list[Row]:
    """Write a business card: a name, job and company, and contact data."""
    align = rng.choice(("left", "center"))
    holder = Row((Cell(names.person(rng, context.split), _HOLDER),), align, scale=rng.choice((1.0, 1.2)), bold=True)
    about = [
        Row((Cell(rng.choice(_POSITIONS), _POSITION),), align),
        Row((Cell(names.shop(rng, context.split), _COMPANY),), align),
    ]
    contact = [
        Row((Cell(text.phone(rng, context.split), PHONE),), align),
        Row((Cell(text.email(rng, context.split), _EMAIL),), align),
        Row((Cell(text.web_address(rng, context.split), _SITE),), align),
        Row((Cell(names.street(rng, context.split), _STREET),), align),
    ]
    room = max(1, context.rows - 2)
    chosen = _some(rng, room, about)
    return [holder, *chosen, divider(rng), *_some(rng, room - len(chosen), contact)]


def _invoice_lines(rng: random.Random, context: LayoutContext) -> list[Row]:
    return [
        _labeled("Date:", text.date(rng, context.split), _INVOICED),
        _labeled(rng.choice(("Due:", "Pay by:")), text.date(rng, context.split), _DUE),
        _labeled(rng.choice(("To:", "Bill to:", "Customer:")), names.person(rng, context.split), _CUSTOMER),
    ]


def _labeled(label: str, value: str, fact: Fact) -> Row:
    return Row((Cell(label), Cell(value, fact)))


def _line(rng: random.Random, context: LayoutContext) -> Row:
    words = " ".join(any_word(rng, context.split) for _ in range(rng.choice(_WORDS_A_LINE)))
    return Row((Cell(rng.choice((words, words, f"{words}.", words.capitalize()))),))


def _some(rng: random.Random, max_rows: int, rows: list[Row]) -> list[Row]:
    """Choose up to ``max_rows`` rows, in their order."""
    chosen = set(rng.sample(range(len(rows)), rng.randint(0, min(max_rows, len(rows)))))
    return [row for index, row in enumerate(rows) if index in chosen]
