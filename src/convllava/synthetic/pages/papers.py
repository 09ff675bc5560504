"""Layouts of letters, forms, tables, schedules, tickets, badges, articles and pages of mixed parts."""

from collections.abc import Callable

from .. import names, text
from . import prose, values
from .blocks import Block, Panel
from .facts import (
    CITY,
    COMPANY,
    DATE,
    EMAIL,
    JOB,
    NUMBER,
    PERSON,
    PHONE,
    PRICE,
    RECIPIENT,
    SEAT,
    SENDER,
    SITE,
    STREET,
    TIME,
    TITLE,
    Fact,
)
from .parts import (
    Column,
    Pair,
    bullets,
    divider,
    heading,
    key_values,
    person,
    prose_block,
    some_pairs,
    table,
    two_columns,
)
from .sheet import Sheet

_JOBS = (
    "Accountant Architect Buyer Chef Designer Director Editor Engineer Florist Lawyer Manager Nurse Owner Pilot Sales "
    "Secretary Teacher Translator Consultant Developer Analyst Photographer Speaker Visitor Staff Assistant Chairman"
).split()
_FORMS = (
    "Registration",
    "Application",
    "Contact",
    "Member card",
    "Order form",
    "Visitor",
    "Patient",
    "Profile",
    "Details",
)


def form(sheet: Sheet) -> None:
    """Compose a form: a title, labels and values, at times with lines of one form side by side."""
    rng, page = sheet.rng, sheet.page
    page.name = rng.choice(("form", "card", "document"))
    if rng.random() < 0.8:
        sheet.add(heading(sheet, rng.choice(_FORMS)), divider(sheet))
    known = _contact_pairs(sheet)
    count = sheet.count(14)
    pairs = [*rng.sample(known, min(len(known), rng.randint(0, count))), *some_pairs(sheet, count)][:count]
    half = 0.48 * sheet.width
    if sheet.columns > 26 and len(pairs) > 3 and rng.random() < 0.3:
        middle = len(pairs) // 2
        sides = (key_values(sheet, pairs[:middle], half), key_values(sheet, pairs[middle:], half))
        sheet.add(two_columns(sheet, sides, (half, half), 0.04 * sheet.width))
        return
    while pairs and not sheet.add(key_values(sheet, pairs)):
        pairs.pop()


def letter(sheet: Sheet) -> None:
    """Compose a letter: sender, date, subject, salutation, prose, a name at the end."""
    rng, page = sheet.rng, sheet.page
    page.name = rng.choice(("letter", "letter", "e-mail", "memo"))
    reader, writer = person(sheet), person(sheet)
    day = sheet.line(sheet.day(values.a_day(rng)), Fact(DATE, page.name), None, rng.choice(("left", "right")))
    if page.name in ("e-mail", "memo"):
        subject = prose.phrase(rng, sheet.split)
        pairs = [
            Pair("From", writer, Fact(SENDER)),
            Pair("To", reader, Fact(RECIPIENT)),
            Pair("Date", sheet.day(values.a_day(rng)), Fact(DATE, page.name)),
            Pair("Subject", subject, Fact(TITLE, page.name)),
        ]
        sheet.add(
            key_values(sheet, pairs[: max(2, sheet.rows - 3)], look=rng.choice(("beside", "tab"))), divider(sheet)
        )
    else:
        sheet.add(day)
        sheet.add(sheet.gap(), sheet.line(f"{rng.choice(('Dear', 'Hello', 'Hi', 'To'))} {reader},"), sheet.gap(0.3))
    align = rng.choice(("left", "left", "justify"))
    while sheet.rows > 3 and sheet.add(prose_block(sheet, sheet.width, min(sheet.rows - 2, rng.randint(2, 8)), align)):
        sheet.add(sheet.gap())
        if rng.random() < 0.3:
            break
    closing = rng.choice(("Yours,", "Kind regards,", "Sincerely,", "Best regards,", "Love,", "Thanks,"))
    sheet.add(sheet.line(closing))
    sheet.add(sheet.line(writer, Fact(SENDER)))


def article(sheet: Sheet) -> None:
    """Compose prose with headings, at times in two columns."""
    rng, page = sheet.rng, sheet.page
    page.name = rng.choice(("article", "page", "page"))
    if rng.random() < 0.75:
        sheet.add(heading(sheet, prose.phrase(rng, sheet.split).capitalize()), sheet.gap(0.4))
    if sheet.rows > 2 and rng.random() < 0.2:
        sheet.add(sheet.line(f"by {person(sheet)}", None, sheet.small), sheet.gap(0.3))
    align = rng.choice(("left", "justify", "justify", "center"))
    if sheet.columns > 26 and sheet.rows > 3 and rng.random() < 0.45:
        half = 0.47 * sheet.width
        sides = (prose_block(sheet, half, sheet.rows, align), prose_block(sheet, half, sheet.rows, align))
        sheet.add(two_columns(sheet, sides, (half, half), 0.06 * sheet.width))
        return
    while sheet.rows > 0 and sheet.add(prose_block(sheet, sheet.width, rng.randint(1, max(1, sheet.rows)), align)):
        if rng.random() < 0.3:
            break
        sheet.add(sheet.gap(rng.choice((0.5, 0.8))))
        if sheet.rows > 4 and rng.random() < 0.25:
            sheet.add(sheet.line(prose.phrase(rng, sheet.split).capitalize(), None, sheet.bold))


def data_table(sheet: Sheet) -> None:
    """Compose a table of people, goods, measurements or results, with or without a title."""
    rng, page = sheet.rng, sheet.page
    page.name = "table"
    if rng.random() < 0.5 and sheet.rows > 4:
        sheet.add(heading(sheet, prose.phrase(rng, sheet.split).capitalize()), sheet.gap(0.3))
    most = max(1, int(sheet.room / (1.45 * sheet.text.height)) - 1)
    for _ in range(6):
        block = table(sheet, *_table_columns(sheet, sheet.count(16, most)))
        if block is not None and sheet.add(block):
            return
        del sheet.page.facts[-1:]
        most = max(1, most - 2)
    form(sheet)


def ticket(sheet: Sheet) -> None:
    """Compose a ticket or a boarding pass: an event or a route, place, date, seat and price."""
    rng, page = sheet.rng, sheet.page
    page.name = "ticket"
    title = rng.choice(("TICKET", "Admit one", "Boarding pass", "Concert", "Cinema", "Parking ticket", "Bus ticket"))
    if rng.random() < 0.5:
        title = prose.saying(rng, sheet.split)
    sheet.add(heading(sheet, title), divider(sheet))
    pairs = [
        Pair("Date", sheet.day(values.a_day(rng)), Fact(DATE, page.name)),
        Pair(rng.choice(("Time", "Doors", "Departs")), values.clock(rng), Fact(TIME)),
        Pair("Seat", rng.choice((f"{rng.randint(1, 40)}{rng.choice('ABCDEF')}", str(rng.randint(1, 500)))), Fact(SEAT)),
        Pair("Price", sheet.money(values.price(rng)), Fact(PRICE, "ticket")),
        Pair("Name", person(sheet), Fact(PERSON, page.name)),
        Pair(rng.choice(("From", "Venue", "Place")), values.city(rng, sheet.split), Fact(CITY)),
        Pair(rng.choice(("Ticket no", "No", "Booking")), values.code(rng), Fact(NUMBER, page.name)),
        *some_pairs(sheet, 2),
    ]
    chosen = rng.sample(pairs, sheet.count(len(pairs)))
    while chosen and not sheet.add(key_values(sheet, chosen)):
        chosen.pop()


def badge(sheet: Sheet) -> None:
    """Compose a name badge or a business card."""
    rng, page = sheet.rng, sheet.page
    page.name = rng.choice(("badge", "name badge", "business card", "card"))
    side = rng.choice(("center", "center", "left"))
    if rng.random() < 0.35 and sheet.rows > 4:
        greeting = rng.choice(("HELLO", "Hello, my name is", "VISITOR", "SPEAKER", "Conference", "STAFF", "Welcome"))
        sheet.add(heading(sheet, greeting, Fact(TITLE, page.name), side), sheet.gap(0.3))
    sheet.add(sheet.line(names.person(rng, sheet.split), Fact(PERSON, page.name), sheet.title, side))
    lines = [
        sheet.line(rng.choice(_JOBS), Fact(JOB), None, side),
        sheet.line(values.brand(rng, sheet.split), Fact(COMPANY), None, side),
        sheet.line(values.phone(rng), Fact(PHONE), None, side),
        sheet.line(text.email(rng, sheet.split), Fact(EMAIL), None, side),
        sheet.line(text.web_address(rng, sheet.split), Fact(SITE), None, side),
        sheet.line(names.street(rng, sheet.split), Fact(STREET), None, side),
    ]
    chosen = sorted(rng.sample(range(len(lines)), rng.randint(1, len(lines))))
    for index in chosen:
        sheet.add(lines[index])


def mixed(sheet: Sheet) -> None:
    """Compose parts of all kinds in any order until the page is full."""
    rng, page = sheet.rng, sheet.page
    page.name = rng.choice(("document", "page", "image"))
    if rng.random() < 0.7:
        sheet.add(heading(sheet, prose.phrase(rng, sheet.split).capitalize()), sheet.gap(0.3))
    while sheet.rows >= 1:
        part = rng.choice(_PARTS)(sheet, rng.randint(1, max(1, min(sheet.rows, 8))))
        if part is None or not sheet.add(part):
            part = sheet.line(prose.phrase(rng, sheet.split))
            if not sheet.add(part):
                return
        if not sheet.add(divider(sheet)) or rng.random() < 0.12:
            return


def _contact_pairs(sheet: Sheet) -> list[Pair]:
    rng, split = sheet.rng, sheet.split
    return [
        Pair(rng.choice(("Name", "Full name")), person(sheet), Fact(PERSON, sheet.page.name)),
        Pair(rng.choice(("Phone", "Tel", "Mobile", "Telephone")), values.phone(rng), Fact(PHONE)),
        Pair(rng.choice(("E-mail", "Email")), text.email(rng, split), Fact(EMAIL)),
        Pair(rng.choice(("Street", "Address")), names.street(rng, split), Fact(STREET)),
        Pair(rng.choice(("City", "Town")), values.town(rng, split), Fact(CITY)),
        Pair("Date", sheet.day(values.a_day(rng)), Fact(DATE, sheet.page.name)),
        Pair("Time", values.clock(rng), Fact(TIME)),
        Pair("Company", values.brand(rng, split), Fact(COMPANY)),
        Pair("Website", text.web_address(rng, split), Fact(SITE)),
    ]


def _table_columns(sheet: Sheet, count: int) -> tuple[list[Column], str]:
    """Draw the columns of a table of ``count`` rows, and a plural noun for its rows."""
    rng, split = sheet.rng, sheet.split
    rows = range(count)
    if rng.random() < 0.5:
        first, subject = (
            Column(
                rng.choice(("Name", "Player", "Student", "Employee")),
                _distinct(count, lambda: names.person(rng, split)),
                "left",
            ),
            "names",
        )
    else:
        name = rng.choice(("Item", "Product", "City", "Country", "Task", "Team", "Part", "Course", "Station"))
        maker = (
            (lambda: sheet.case(values.article(rng, split)))
            if name in ("Item", "Product", "Part")
            else (lambda: values.city(rng, split))
        )
        first, subject = Column(name, _distinct(count, maker), "left"), rng.choice(("rows", "entries"))
    number = rng.choice(("left", "right", "right", "center"))
    day = values.day_format(rng)
    pool = [
        Column(rng.choice(("Price", "Cost", "Fee", "Salary")), [sheet.money(values.price(rng)) for _ in rows], "right"),
        Column(
            rng.choice(("Qty", "Pcs", "Stock", "Age", "Score", "Points")),
            [str(rng.randint(0, 120)) for _ in rows],
            number,
        ),
        Column("Date", [day(values.a_day(rng)) for _ in rows], "left"),
        Column(
            rng.choice(("Time", "Start", "Departs")),
            [f"{rng.randrange(24):02}:{rng.randrange(60):02}" for _ in rows],
            number,
        ),
        Column(rng.choice(("City", "Place")), [values.city(rng, split) for _ in rows], "left"),
        Column(rng.choice(("Code", "ID", "Ref")), [values.code(rng) for _ in rows], "left"),
        Column("Status", [rng.choice(("open", "paid", "done", "new", "late", "ok", "closed")) for _ in rows], "left"),
        Column(rng.choice(("Share", "Rate", "Change")), [values.percent(rng) for _ in rows], number),
        Column(rng.choice(("Weight", "Height", "Speed")), [f"{rng.uniform(0, 99):.1f}" for _ in rows], "right"),
        Column("Phone", [values.phone(rng) for _ in rows], "left"),
        Column("Color", [rng.choice(("red", "blue", "green", "black", "white", "gray")) for _ in rows], "left"),
    ]
    return [first, *rng.sample(pool, rng.randint(1, 4))], subject


def _distinct(count: int, make: Callable[[], str]) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found[make()] = None
    return list(found)


def _pairs_part(sheet: Sheet, rows: int) -> Block | None:
    return key_values(sheet, some_pairs(sheet, max(1, rows // 2)))


def _prose_part(sheet: Sheet, rows: int) -> Block | None:
    return prose_block(sheet, sheet.width, rows)


def _table_part(sheet: Sheet, rows: int) -> Block | None:
    block = table(sheet, *_table_columns(sheet, max(1, rows // 2)))
    if block is None or block.height > sheet.room:
        del sheet.page.facts[-1:]
        return None
    return block


def _list_part(sheet: Sheet, rows: int) -> Block | None:
    return bullets(sheet, max(1, rows // 2))


def _panel_part(sheet: Sheet, rows: int) -> Block | None:
    padding = max(3, sheet.size // 2)
    width = sheet.width - 2 * padding
    inner = (
        prose_block(sheet, width, max(1, rows // 2))
        if sheet.rng.random() < 0.5
        else key_values(sheet, some_pairs(sheet, max(1, rows // 2)), width)
    )
    tint = sheet.palette.tint if sheet.rng.random() < 0.5 else None
    return Panel(
        inner,
        padding,
        tint,
        sheet.palette.line if tint is None or sheet.rng.random() < 0.3 else None,
        sheet.rng.choice((0, 0, 6)),
    )


def _columns_part(sheet: Sheet, rows: int) -> Block | None:
    if sheet.columns < 22:
        return None
    half = 0.47 * sheet.width
    sides: list[Block] = []
    for _ in range(2):
        if sheet.rng.random() < 0.5:
            sides.append(prose_block(sheet, half, rows, "left"))
        else:
            sides.append(key_values(sheet, some_pairs(sheet, max(1, rows // 2)), half))
    return two_columns(sheet, sides, (half, half), 0.06 * sheet.width)


def _heading_part(sheet: Sheet, rows: int) -> Block | None:
    return sheet.line(prose.phrase(sheet.rng, sheet.split).capitalize(), None, sheet.bold)


_PARTS = (
    _pairs_part,
    _pairs_part,
    _prose_part,
    _prose_part,
    _table_part,
    _list_part,
    _panel_part,
    _columns_part,
    _heading_part,
)


def plain_lines(sheet: Sheet) -> None:
    """Compose a few plain lines of text without any structure."""
    rng, page = sheet.rng, sheet.page
    page.name = rng.choice(("image", "image", "note"))
    side = rng.choice(("left", "left", "center", "right"))
    count = sheet.count(rng.choice((1, 2, 3, 3, 4, 5, 8, 12)))
    gap = rng.choice((0, 0, 0.3, 0.8, 1.5))
    for _ in range(count):
        line = prose.phrase(rng, sheet.split)
        if rng.random() < 0.3:
            label, value = values.labeled_value(rng, sheet.split)
            line = f"{label}: {value}"
        elif rng.random() < 0.2:
            line = text.any_text(rng, sheet.split)
        if not sheet.add(sheet.line(line, None, None, side)) or not sheet.add(sheet.gap(gap)):
            return
