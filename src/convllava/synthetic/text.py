"""Short texts of documents: amounts, dates, codes, addresses, labeled values."""

import random
import string
from collections.abc import Callable

from .seeding import only
from .words import any_word

MONTHS = "January February March April May June July August September October November December".split()
_LABELS = (
    "Total",
    "Date",
    "No",
    "Tax",
    "Subtotal",
    "Due",
    "Tel",
    "Ref",
    "Qty",
    "Price",
    "Name",
    "Paid",
    "Change",
)
_DOMAINS = ("com", "org", "net", "de", "co.uk", "io")
_PUNCTUATION = ".,!?;:"
_QUOTES = (
    '"{}"',
    "({})",
    "[{}]",
    "'{}'",
    "*{}*",
    "<{}>",
    "#{}",
    "@{}",
    "{}_{}",
    "{}/{}",
    "{}-{}",
    "{} & {}",
    "{}+{}",
)

Writer = Callable[[random.Random, str], str]


def words(rng: random.Random, split: str) -> str:
    """Write one to three words in one case, at times with a mark of punctuation."""
    text = " ".join(any_word(rng, split) for _ in range(rng.choice((1, 1, 2, 3))))
    text = rng.choice((str.lower, str.lower, str.title, str.capitalize, str.upper))(text)
    return text + rng.choice(_PUNCTUATION) if rng.random() < 0.15 else text


def quoted(rng: random.Random, split: str) -> str:
    """Write words within or next to a rarer printed character."""
    pattern = rng.choice(_QUOTES)
    return pattern.format(*(any_word(rng, split) for _ in range(pattern.count("{}"))))


def number(rng: random.Random, split: str) -> str:
    """Write a whole number of one to six digits."""
    return str(rng.randrange(10 ** rng.randint(1, 6)))


def amount(rng: random.Random, split: str) -> str:
    """Write a sum of money, with or without a currency sign and thousands."""
    value = rng.randrange(10 ** rng.randint(3, 6)) / 100
    body = f"{value:,.2f}" if rng.random() < 0.7 else f"{value:.2f}"
    return rng.choice(("{}", "{}", "{}", "${}", "${}", "£{}", "€{}", "{} USD", "{} EUR")).format(body)


def quantity(rng: random.Random, split: str) -> str:
    """Write a quantity at a unit price, such as ``3 x 4.95``."""
    price = f"{rng.randrange(5000) / 100:.2f}"
    return rng.choice(("{} x {}", "{} @ {}", "{} * {}")).format(rng.randint(1, 24), price)


def percent(rng: random.Random, split: str) -> str:
    """Write a percentage."""
    return rng.choice((f"{rng.randint(1, 100)}%", f"{rng.randrange(1000) / 10:.1f}%", f"-{rng.randint(1, 90)}%"))


def date(rng: random.Random, split: str) -> str:
    """Write a day in one of the usual formats."""
    year, month, day = rng.randint(1990, 2035), rng.randint(1, 12), rng.randint(1, 28)
    name = MONTHS[month - 1]
    return rng.choice(
        (
            f"{year}-{month:02}-{day:02}",
            f"{day:02}/{month:02}/{year}",
            f"{month:02}/{day:02}/{year % 100:02}",
            f"{day:02}.{month:02}.{year}",
            f"{day} {name[:3]} {year}",
            f"{day} {name} {year}",
            f"{name[:3]} {day}, {year}",
            f"{name} {day}, {year}",
        )
    )


def time(rng: random.Random, split: str) -> str:
    """Write a time of day."""
    hour, minute = rng.randrange(24), rng.randrange(60)
    if rng.random() < 0.3:
        return f"{hour % 12 or 12}:{minute:02} {'AM' if hour < 12 else 'PM'}"
    return f"{hour:02}:{minute:02}"


def code(rng: random.Random, split: str) -> str:
    """Write an invoice number, an article number or another mix of capitals, digits and dashes."""
    kind = rng.randrange(4)
    if kind == 0:
        return f"{_capitals(rng, 2, 4)}-{rng.randrange(100, 100000)}"
    if kind == 1:
        return f"{_capitals(rng, 2, 2)}{_digits(rng, 2)}-{_digits(rng, 4)}"
    if kind == 2:
        return f"#{_digits(rng, rng.randint(4, 7))}"
    return "".join(rng.choices(string.ascii_uppercase + string.digits, k=rng.randint(4, 10)))


def phone(rng: random.Random, split: str) -> str:
    """Write a telephone number."""
    area, exchange, line = _digits(rng, 3), _digits(rng, 3), _digits(rng, 4)
    pattern = rng.choice(("({}) {}-{}", "{}-{}-{}", "+1 {} {} {}", "0{} {}{}"))
    return pattern.format(area, exchange, line)


def email(rng: random.Random, split: str) -> str:
    """Write an e-mail address."""
    number = rng.choice(("", "", str(rng.randrange(100))))
    return f"{any_word(rng, split)}{number}@{any_word(rng, split)}.{rng.choice(_DOMAINS)}"


def web_address(rng: random.Random, split: str) -> str:
    """Write the address of a site."""
    return f"www.{any_word(rng, split)}.{rng.choice(_DOMAINS)}"


def labeled(rng: random.Random, split: str) -> str:
    """Write a label and its value, such as ``Total: 12.50``."""
    label = rng.choice(only(split, _LABELS)) if rng.random() < 0.4 else any_word(rng, split).capitalize()
    value = rng.choice((amount, date, number, code, time, percent))(rng, split)
    return rng.choice((f"{label}: {value}", f"{label} {value}", f"{label.upper()}: {value}"))


def _capitals(rng: random.Random, low: int, high: int) -> str:
    return "".join(rng.choices(string.ascii_uppercase, k=rng.randint(low, high)))


def _digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choices(string.digits, k=count))


WRITERS: dict[Writer, int] = {
    words: 45,
    quoted: 5,
    number: 5,
    amount: 10,
    quantity: 5,
    percent: 3,
    date: 7,
    time: 3,
    code: 7,
    phone: 3,
    email: 2,
    web_address: 1,
    labeled: 8,
}
"""Writers of short texts with their relative frequencies."""

_KINDS, _WEIGHTS = tuple(WRITERS), tuple(WRITERS.values())


def any_text(rng: random.Random, split: str) -> str:
    """Write a text of a kind drawn from ``WRITERS``."""
    return rng.choices(_KINDS, _WEIGHTS)[0](rng, split)
