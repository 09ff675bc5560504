"""Amounts, dates, times, numbers and codes in the formats that documents use."""

import random
import string
from collections.abc import Callable
from datetime import date, timedelta

from .. import names, text
from ..seeding import only
from ..words import any_word, invented_word

_CITIES = """
    Amsterdam Athens Atlanta Austin Baltimore Bangkok Barcelona Beijing Belfast Berlin Bern Birmingham Boston Brisbane
    Bristol Brussels Budapest Cairo Calgary Cambridge Cardiff Chicago Cologne Copenhagen Dallas Delhi Denver Detroit
    Dublin Edinburgh Florence Frankfurt Geneva Glasgow Hamburg Hanoi Helsinki Houston Istanbul Jakarta Kyoto Leeds
    Lima Lisbon Liverpool London Lyon Madrid Manchester Melbourne Memphis Mexico Miami Milan Montreal Moscow Mumbai
    Munich Nairobi Naples Oslo Ottawa Oxford Paris Perth Phoenix Portland Prague Riga Rome Rotterdam Santiago Seattle
    Seoul Shanghai Singapore Sofia Springfield Stockholm Sydney Tokyo Toronto Turin Valencia Vancouver Venice Vienna
    Warsaw Washington Wellington York Zagreb Zurich
"""

_COUNTRIES = """
    Argentina Australia Austria Belgium Brazil Bulgaria Canada Chile China Colombia Croatia Cuba Denmark Egypt Estonia
    Finland France Germany Ghana Greece Hungary Iceland India Indonesia Iran Ireland Israel Italy Jamaica Japan Kenya
    Latvia Lebanon Malaysia Mexico Morocco Nepal Netherlands Nigeria Norway Pakistan Peru Philippines Poland Portugal
    Romania Russia Serbia Singapore Slovakia Slovenia Spain Sweden Switzerland Taiwan Thailand Tunisia Turkey Uganda
    Ukraine Uruguay Vietnam
"""

MoneyWriter = Callable[[int], str]
"""Return an amount of cents as text."""

_SIGNS = ("$", "$", "$", "£", "€", "RM", "Rs.", "CHF", "kr", "USD", "EUR", "A$")

_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_LONG_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = text.MONTHS

DateWriter = Callable[[date], str]

DATE_FORMATS: tuple[DateWriter, ...] = (
    lambda d: f"{d.year}-{d.month:02}-{d.day:02}",
    lambda d: f"{d.day:02}/{d.month:02}/{d.year}",
    lambda d: f"{d.month:02}/{d.day:02}/{d.year}",
    lambda d: f"{d.month}/{d.day}/{d.year}",
    lambda d: f"{d.day:02}/{d.month:02}/{d.year % 100:02}",
    lambda d: f"{d.day:02}.{d.month:02}.{d.year}",
    lambda d: f"{d.day}.{d.month}.{d.year}",
    lambda d: f"{d.day:02}-{d.month:02}-{d.year}",
    lambda d: f"{d.year}/{d.month:02}/{d.day:02}",
    lambda d: f"{d.day} {_MONTHS[d.month - 1]} {d.year}",
    lambda d: f"{d.day} {_MONTHS[d.month - 1][:3]} {d.year}",
    lambda d: f"{_MONTHS[d.month - 1]} {d.day}, {d.year}",
    lambda d: f"{_MONTHS[d.month - 1][:3]} {d.day}, {d.year}",
    lambda d: f"{d.day:02}-{_MONTHS[d.month - 1][:3]}-{d.year}",
    lambda d: f"{d.day:02} {_MONTHS[d.month - 1][:3].upper()} {d.year}",
    lambda d: f"{_WEEKDAYS[d.weekday()]} {d.day} {_MONTHS[d.month - 1][:3]} {d.year}",
    lambda d: f"{_WEEKDAYS[d.weekday()]}, {_MONTHS[d.month - 1][:3]} {d.day}, {d.year}",
    lambda d: f"{_MONTHS[d.month - 1][:3]} {d.day}",
    lambda d: f"{d.day} {_MONTHS[d.month - 1]}",
    lambda d: f"{_LONG_WEEKDAYS[d.weekday()]}, {d.day} {_MONTHS[d.month - 1]}",
)
"""Writers of a day; the most usual formats come first."""


def a_day(rng: random.Random) -> date:
    """Draw a day from 1995 to 2034, mostly of the last years."""
    year = rng.randint(2015, 2028) if rng.random() < 0.8 else rng.randint(1995, 2034)
    return date(year, 1, 1) + timedelta(days=rng.randrange(365))


def day_format(rng: random.Random) -> DateWriter:
    """Draw a format; those in figures are drawn more often."""
    return DATE_FORMATS[int(len(DATE_FORMATS) * rng.random() ** 1.4)]


def day(rng: random.Random, split: str = "") -> str:
    """Write a day."""
    return day_format(rng)(a_day(rng))


def clock(rng: random.Random, split: str = "") -> str:
    """Write a time of day, at times with seconds or AM and PM."""
    hour, minute = rng.randrange(24), rng.randrange(60)
    kind = rng.random()
    if kind < 0.6:
        return f"{hour:02}:{minute:02}"
    if kind < 0.7:
        return f"{hour:02}:{minute:02}:{rng.randrange(60):02}"
    half = ("AM", "PM") if rng.random() < 0.5 else ("am", "pm")
    space = rng.choice(("", " ", " "))
    return f"{hour % 12 or 12}:{minute:02}{space}{half[hour >= 12]}"


def money_writer(rng: random.Random) -> MoneyWriter:
    """Draw how a document writes amounts: sign before, after or missing; point or comma; thousands or not."""
    sign = rng.choice(_SIGNS)
    place = rng.random()
    before = after = ""
    if place < 0.4:
        before = sign if sign in "$£€A$" and rng.random() < 0.8 else f"{sign} "
    elif place < 0.55:
        after = f" {sign}"
    point, group = rng.choice(((".", ","), (".", ","), (".", ","), (".", ""), (",", "."), (",", " "), (",", "")))
    whole = rng.random() < 0.06

    def write(cents: int) -> str:
        minus, cents = ("-", -cents) if cents < 0 else ("", cents)
        units = f"{cents // 100:,}".replace(",", group)
        digits = units if whole and cents % 100 == 0 else f"{units}{point}{cents % 100:02}"
        return f"{minus}{before}{digits}{after}"

    return write


def amount(rng: random.Random, split: str = "") -> str:
    """Write an amount of money in any format."""
    return money_writer(rng)(price(rng))


def price(rng: random.Random) -> int:
    """Draw a price in cents: most end in 0, 5 or 9, few are above a hundred."""
    units = int(10 ** rng.uniform(0, rng.choice((1, 1.3, 1.3, 1.7, 2, 2.5, 3.5))))
    kind = rng.random()
    cents = rng.choice((0, 50, 95, 99, 90, 49, 25, 75)) if kind < 0.5 else rng.randrange(100)
    return 100 * units + cents


def digits(rng: random.Random, count: int) -> str:
    """Write some digits."""
    return "".join(rng.choices(string.digits, k=count))


def whole_number(rng: random.Random, split: str = "") -> str:
    """Write a whole number, at times with thousands."""
    value = rng.randrange(10 ** rng.randint(1, 7))
    return f"{value:,}" if rng.random() < 0.4 else str(value)


def decimal(rng: random.Random, split: str = "") -> str:
    """Write a measured value: decimals, a percentage, a sign or a unit."""
    value = rng.uniform(0, 10 ** rng.randint(0, 3))
    number = f"{value:.{rng.randint(1, 3)}f}"
    kinds = ("{}", "{}", "{}%", "-{}", "+{}", "{} kg", "{} cm", "{} m", "{} ml", "{} km", "{}g", "{} h", "{} V", "{}x")
    return rng.choice(kinds).format(number)


def code(rng: random.Random, split: str = "") -> str:
    """Write an invoice number, serial number, booking code or similar."""
    kind = rng.randrange(8)
    letters = "".join(rng.choices(string.ascii_uppercase, k=rng.randint(1, 4)))
    if kind == 0:
        return f"{letters}-{digits(rng, rng.randint(2, 6))}"
    if kind == 1:
        return f"{letters}{digits(rng, rng.randint(2, 6))}"
    if kind == 2:
        return f"#{digits(rng, rng.randint(3, 7))}"
    if kind == 3:
        return f"{rng.randint(2015, 2028)}-{digits(rng, rng.randint(2, 5))}"
    if kind == 4:
        return f"{letters}-{rng.randint(2015, 2028)}-{digits(rng, rng.randint(2, 4))}"
    if kind == 5:
        return f"{digits(rng, 3)}/{digits(rng, rng.randint(2, 4))}"
    if kind == 6:
        return "".join(rng.choices(string.ascii_uppercase + string.digits, k=rng.randint(4, 10)))
    return digits(rng, rng.randint(4, 10))


def phone(rng: random.Random, split: str = "") -> str:
    """Write a telephone number in one of many formats."""
    a, b, c = digits(rng, 3), digits(rng, 3), digits(rng, 4)
    patterns = (
        f"({a}) {b}-{c}",
        f"{a}-{b}-{c}",
        f"{a} {b} {c}",
        f"{a}.{b}.{c}",
        f"+1 {a} {b} {c}",
        f"+{rng.randint(20, 99)} {a} {b}{c}",
        f"0{a[:2]} {b} {c}",
        f"0{a}/{b}{c}",
        f"{b}-{c}",
        f"0{a[:1]}-{c} {b}",
        f"555-{c}",
    )
    return rng.choice(patterns)


def postcode(rng: random.Random, split: str = "") -> str:
    """Write a post code."""
    letters = rng.choices(string.ascii_uppercase, k=4)
    british = f"{letters[0]}{letters[1]}{rng.randint(1, 20)} {rng.randint(1, 9)}{letters[2]}{letters[3]}"
    return rng.choice((digits(rng, 5), digits(rng, 5), digits(rng, 4), british))


def city(rng: random.Random, split: str) -> str:
    """Write a city: a real or an invented one."""
    return rng.choice(listed(_CITIES, split)) if rng.random() < 0.5 else names.town(rng, split)


def country(rng: random.Random, split: str) -> str:
    """Write a country."""
    return rng.choice(listed(_COUNTRIES, split))


def town(rng: random.Random, split: str) -> str:
    """Write a town, at times with a state or a post code."""
    name = city(rng, split)
    state = "".join(rng.choices(string.ascii_uppercase, k=2))
    return rng.choice((name, name, f"{name}, {state} {digits(rng, 5)}", f"{postcode(rng)} {name}"))


def hours(rng: random.Random, split: str = "") -> str:
    """Write opening hours."""
    opens, closes = rng.randint(5, 11), rng.randint(1, 11)
    days = rng.choice(("", "", "Mon-Fri ", "Mon - Sat ", "Daily "))
    half = rng.choice(("00", "30"))
    span = rng.choice(
        (
            f"{opens}:00 - {closes + 12}:{half}",
            f"{opens:02}:{half}-{closes + 12}:00",
            f"{opens}am - {closes}pm",
            f"{opens} AM to {closes} PM",
            f"{opens}:{half} am - {closes}:00 pm",
        )
    )
    return days + span


def percent(rng: random.Random, split: str = "") -> str:
    """Write a percentage."""
    return rng.choice((f"{rng.randint(1, 100)}%", f"{rng.randrange(1000) / 10:.1f}%", f"{rng.randint(1, 90)} %"))


def word_case(rng: random.Random) -> Callable[[str], str]:
    """Draw how a document writes names: as they are, in capitals, with capitals or in small letters."""
    return rng.choice((str.capitalize, str.capitalize, str.title, str.title, str.upper, str.lower))


def brand(rng: random.Random, split: str) -> str:
    """Write the name of a shop or a company, at times with its legal form."""
    name = names.shop(rng, split)
    return (
        f"{name} {rng.choice(('Ltd', 'Inc.', 'GmbH', 'LLC', 'Co.', 'Ltd.', 'AG', 'SDN BHD'))}"
        if rng.random() < 0.2
        else name
    )


def article(rng: random.Random, split: str) -> str:
    """Write the name of an article, at times with a size."""
    name = names.article_name(rng, split)
    if rng.random() < 0.15:
        return f"{name} {rng.choice(('500g', '1L', '250 ml', '2pk', 'XL', 'large', 'small', '1kg', '12 oz'))}"
    return name


def label_word(rng: random.Random, split: str) -> str:
    """Write a word that labels a value: a listed or an invented one."""
    return rng.choice((any_word, invented_word))(rng, split).capitalize()


GENERAL_LABELS: dict[str, text.Writer] = {
    "Ref": code,
    "Room": lambda rng, split: str(rng.randint(1, 999)),
    "Table": lambda rng, split: str(rng.randint(1, 60)),
    "Cashier": names.person,
    "Server": names.person,
    "Weight": lambda rng, split: rng.choice((f"{rng.randint(1, 99) * 10} g", f"{rng.randint(1, 250) / 10:.1f} kg")),
    "Size": lambda rng, split: rng.choice(("S", "M", "L", "XL", f"{rng.randint(30, 52)}")),
    "Color": lambda rng, split: rng.choice(("red", "blue", "black", "white", "green", "gray", "yellow")),
    "Age": lambda rng, split: str(rng.randint(1, 99)),
    "Score": lambda rng, split: str(rng.randint(0, 100)),
    "Status": lambda rng, split: rng.choice(("open", "closed", "paid", "pending", "active", "done", "new", "shipped")),
    "Country": country,
    "Department": lambda rng, split: label_word(rng, split),
    "Project": lambda rng, split: label_word(rng, split),
    "Manager": names.person,
    "Doctor": names.person,
    "Author": names.person,
    "Version": lambda rng, split: f"{rng.randint(0, 9)}.{rng.randint(0, 20)}",
    "Height": decimal,
    "Speed": decimal,
    "Temperature": lambda rng, split: f"{rng.randint(-20, 40)} C",
    "Model": code,
    "Serial": code,
    "Account": lambda rng, split: digits(rng, rng.randint(5, 10)),
    "Balance": amount,
    "Fee": amount,
    "Deposit": amount,
    "Gate": lambda rng, split: f"{rng.choice(string.ascii_uppercase)}{rng.randint(1, 60)}",
    "Floor": lambda rng, split: str(rng.randint(0, 40)),
    "Order": code,
    "Lot": code,
    "Best before": day,
    "Born": day,
    "Expires": day,
    "Duration": lambda rng, split: f"{rng.randint(1, 180)} min",
    "Pages": lambda rng, split: str(rng.randint(2, 900)),
    "Level": lambda rng, split: str(rng.randint(1, 20)),
    "Member": code,
    "Language": lambda rng, split: label_word(rng, split),
    "Subject": lambda rng, split: " ".join(any_word(rng, split) for _ in range(rng.randint(1, 3))).capitalize(),
}
"""Labels that forms, tickets and notes use, with writers of their values."""


def labeled_value(rng: random.Random, split: str) -> tuple[str, str]:
    """Write a label and its value."""
    if rng.random() < 0.25:
        writer = rng.choice((amount, day, code, decimal, clock, whole_number, percent, label_word))
        return label_word(rng, split), writer(rng, split)
    name = rng.choice(tuple(GENERAL_LABELS))
    return name, GENERAL_LABELS[name](rng, split)


def listed(words: str, split: str) -> tuple[str, ...]:
    """Return the words of a list that belong to a split."""
    return only(split, words.split())
