"""Layouts of receipts, invoices, price lists and price tags."""

from collections.abc import Sequence
from datetime import timedelta

from .. import names
from . import values
from .blocks import Block, Cell, Row, Stack, shorten
from .facts import (
    CASH,
    CHANGE,
    CITY,
    COUNT,
    CUSTOMER,
    DATE,
    DISCOUNT,
    DUE,
    LABELED,
    NUMBER,
    PHONE,
    PRICE,
    SHOP,
    STREET,
    SUBTOTAL,
    TAX,
    TIME,
    TIP,
    TITLE,
    TOTAL,
    Fact,
    Topic,
)
from .page import Lettering
from .parts import (
    Article,
    Column,
    Pair,
    articles,
    bullets,
    divider,
    heading,
    key_values,
    pair,
    person,
    price_rows,
    table,
    two_columns,
)
from .sheet import Sheet

_TOTALS = (
    "Total",
    "Total",
    "TOTAL",
    "Grand total",
    "Amount due",
    "Total due",
    "Balance due",
    "To pay",
    "Sum",
    "Net total",
)
_THANKS = (
    "Thank you!",
    "Thank you for your visit",
    "THANK YOU",
    "Please come back soon",
    "Have a nice day",
    "Goods sold are not returnable",
    "Thanks for shopping with us",
    "See you soon!",
    "Customer copy",
    "Keep this receipt",
)


def receipt(sheet: Sheet) -> None:
    """Compose a receipt: shop, number and time, articles, total, how it was paid, thanks."""
    rng, page = sheet.rng, sheet.page
    page.name = "receipt"
    side = rng.choice(("center", "center", "left"))
    sheet.add(sheet.line(values.brand(rng, sheet.split), Fact(SHOP, page.name), sheet.title, side))
    for block in _address(sheet, side)[: rng.choice((0, 1, 2, 3))]:
        if sheet.rows > 6:
            sheet.add(block)
    if sheet.rows > 5 and rng.random() < 0.2:
        sheet.add(sheet.line(rng.choice(("RECEIPT", "Sales Receipt", "Cash receipt", "TAX INVOICE")), None, None, side))
    if sheet.rows > 5:
        sheet.add(divider(sheet), _when(sheet))
    sheet.add(divider(sheet))
    foot_room = min(sheet.rows - 2, rng.randint(1, 6))
    count = sheet.count(18, sheet.rows - foot_room - 2)
    items = articles(sheet, count)
    sold = sum(item.price for item in items)
    sheet.page.facts.append((Fact(COUNT, "items"), str(len(items))))
    if not _item_table(sheet, items, foot_room):
        sheet.add(*price_rows(sheet, items, rng.choice(("none", "none", "first"))))
    _sums(sheet, sold, foot_room)
    if sheet.rows > 1 and rng.random() < 0.6:
        sheet.add(sheet.gap(), sheet.line(rng.choice(_THANKS), None, sheet.small, side))


def invoice(sheet: Sheet) -> None:
    """Compose an invoice: seller, number and dates, customer, a table of articles, sums, terms."""
    rng, page = sheet.rng, sheet.page
    page.name = rng.choice(("invoice", "invoice", "invoice", "bill", "quote", "order"))
    word = rng.choice((page.name.upper(), page.name.capitalize()))
    seller = values.brand(rng, sheet.split)
    head: list[Block] = [heading(sheet, word), sheet.line(seller, Fact(SHOP, page.name), sheet.bold)]
    if rng.random() < 0.4:
        head.reverse()
    sheet.add(*head)
    for block in _address(sheet, "left")[: rng.choice((0, 1, 2))]:
        if sheet.rows > 9:
            sheet.add(block)
    _invoice_details(sheet)
    sheet.add(divider(sheet))
    foot_room = min(sheet.rows - 3, rng.randint(1, 4))
    count = sheet.count(12, int((sheet.rows - foot_room) / 1.5) - 1)
    items = articles(sheet, count)
    if not _item_table(sheet, items, foot_room, always=True):
        sheet.add(*price_rows(sheet, items))
    _sums(sheet, sum(item.price for item in items), foot_room, cash=False)
    if sheet.rows > 2 and rng.random() < 0.5:
        terms = rng.choice(
            ("Payment within 14 days", "Payable within 30 days", "Thank you for your business", "Net 30")
        )
        sheet.add(sheet.gap(), sheet.line(terms, None, sheet.small))


def price_list(sheet: Sheet) -> None:
    """Compose a menu or a price list, at times in sections."""
    rng, page = sheet.rng, sheet.page
    page.name = rng.choice(("menu", "price list", "list"))
    title = rng.choice(("Menu", "MENU", "Price list", "Prices", "Our menu", "Today's specials", "Lunch", "Drinks"))
    if rng.random() < 0.4:
        title = values.brand(rng, sheet.split)
    sheet.add(heading(sheet, title), divider(sheet))
    count = 0
    while sheet.rows > 1 and count < 20:
        if sheet.rows > 4 and rng.random() < 0.25:
            section = rng.choice(("Starters", "Mains", "Desserts", "Drinks", "Salads", "Soups", "Specials", "Snacks"))
            sheet.add(sheet.gap(0.4), sheet.line(section, None, sheet.bold))
        items = articles(sheet, rng.randint(1, min(6, sheet.rows)))
        items = [Article(item.name, 1, item.unit, item.unit) for item in items]
        if not sheet.add(*price_rows(sheet, items)):
            break
        count += len(items)
        if rng.random() < 0.2:
            break
    page.facts.append((Fact(COUNT, "items"), str(count)))


def price_tag(sheet: Sheet) -> None:
    """Compose a price tag: an article and a large price."""
    rng, page = sheet.rng, sheet.page
    page.name = rng.choice(("price tag", "tag", "label"))
    name = sheet.case(values.article(rng, sheet.split))
    side = rng.choice(("center", "center", "left"))
    price = sheet.line(sheet.money(values.price(rng)), Fact(PRICE, name), sheet.title, side)
    name_line = sheet.line(name, Fact(TITLE, page.name), sheet.bold, side)
    first, second = (name_line, price) if rng.random() < 0.75 else (price, name_line)
    sheet.add(first, sheet.gap(0.3), second)
    extras = [
        sheet.line(f"was {sheet.money(values.price(rng))}", None, sheet.small, side),
        sheet.line(values.code(rng), Fact(NUMBER, "article"), sheet.small, side),
        sheet.line(
            rng.choice(("SALE", "NEW", "Special offer", "per kg", "each", "Reduced", "Buy 2 get 1 free")),
            None,
            None,
            side,
        ),
        sheet.line(values.brand(rng, sheet.split), Fact(SHOP, page.name), None, side),
    ]
    for extra in rng.sample(extras, rng.randint(0, 3)):
        sheet.add(sheet.gap(0.2), extra)


def _address(sheet: Sheet, side: str) -> list[Row]:
    rng = sheet.rng
    phone = values.phone(rng)
    label = rng.choice(("Tel: ", "Tel. ", "Phone: ", ""))
    return [
        sheet.line(names.street(rng, sheet.split), Fact(STREET), None, side),
        sheet.line(values.town(rng, sheet.split), Fact(CITY), None, side),
        _after_label(sheet, label, phone, side),
    ]


def _after_label(sheet: Sheet, label: str, value: str, side: str) -> Row:
    """Return a label and a value as one text, of which the value is the answer."""
    letters = sheet.text
    if not label or letters.width(f"{label} {value}") > sheet.width:
        return sheet.line(value, Fact(PHONE), None, side)
    width = letters.width(label.strip()) + letters.width(" ") + letters.width(value)
    left = {"left": 0.0, "center": (sheet.width - width) / 2, "right": sheet.width - width}[side]
    middle = left + letters.width(label.strip())
    start = middle + letters.width(" ")
    return Row(
        (Cell(label.strip(), letters, left, middle), Cell(value, letters, start, sheet.width, "left", Fact(PHONE)))
    )


def _when(sheet: Sheet) -> Block:
    """Return date, time and number of a receipt in one of the usual arrangements."""
    rng, kind = sheet.rng, sheet.page.name
    day, clock = sheet.day(values.a_day(rng)), values.clock(rng)
    date_fact, time_fact = Fact(DATE, kind), Fact(TIME)
    if rng.random() < 0.4 and sheet.text.width(f"{day} {clock}") + sheet.size < sheet.width:
        cells = (
            Cell(day, sheet.text, 0, sheet.width / 2, "left", date_fact),
            Cell(clock, sheet.text, sheet.width / 2, sheet.width, "right", time_fact),
        )
        if sheet.text.width(day) + sheet.size < sheet.width / 2:
            return Row(cells)
    number = rng.choice(("Receipt No", "Receipt #", "No", "Order", "Bill No", "Trans"))
    pairs = [
        Pair("Date", day, date_fact),
        Pair("Time", clock, time_fact),
        Pair(number, values.code(rng), Fact(NUMBER, "receipt")),
        pair(rng, rng.choice(("Cashier", "Server", "Staff", "Clerk")), person(sheet)),
        pair(rng, rng.choice(("Table", "Guests", "Till", "Register", "Terminal")), str(rng.randint(1, 40))),
    ]
    count = min(rng.randint(1, 4), max(1, (sheet.rows - 5) // 2))
    chosen = [pairs[0], *rng.sample(pairs[1:], count)][: max(1, count)]
    return key_values(sheet, chosen, look=rng.choice(("beside", "beside", "tab", "spread")))


def _item_table(sheet: Sheet, items: Sequence[Article], foot_room: int, always: bool = False) -> bool:
    """Add the articles as a table if it fits; return whether it does."""
    rng = sheet.rng
    if not always and rng.random() < 0.7:
        return False
    money = sheet.money if rng.random() < 0.4 else lambda cents: f"{cents / 100:.2f}"
    name = rng.choice(("Item", "Item", "Description", "Article", "Product"))
    columns = [
        Column(name, [item.name for item in items], "left"),
        Column(
            rng.choice(("Qty", "Quantity", "Pcs")),
            [str(item.quantity) for item in items],
            rng.choice(("right", "center")),
        ),
        Column("Unit price", [money(item.unit) for item in items], "right"),
        Column(rng.choice(("Amount", "Total", "Price")), [money(item.price) for item in items], "right"),
    ]
    if sheet.columns < 22:
        del columns[2]
    if rng.random() < 0.2 and sheet.columns > 26:
        columns.insert(0, Column("No", [str(index + 1) for index in range(len(items))], "left"))
    block = table(sheet, columns, "items")
    if block is None or block.height + foot_room * sheet.text.height > sheet.room:
        del sheet.page.facts[-1:]
        return False
    return sheet.add(block)


def _sums(sheet: Sheet, sold: int, room: int, cash: bool = True) -> None:
    """Add subtotal, discount, tax, total, cash and change, as many as there is room for."""
    rng = sheet.rng
    rows: list[tuple[str, int, Topic]] = []
    total = sold
    if room >= 3 and rng.random() < 0.7:
        rows.append((rng.choice(("Subtotal", "Sub-total", "Sub Total", "Net")), sold, SUBTOTAL))
        if rng.random() < 0.2:
            cut = sold * rng.choice((5, 10, 20)) // 100
            rows.append((rng.choice(("Discount", "Rebate")), -cut, DISCOUNT))
            total -= cut
        rate = rng.choice((5, 6, 7, 8, 10, 19, 20))
        tax = total * rate // 100
        rows.append(
            (rng.choice((f"Tax ({rate}%)", f"VAT {rate}%", "Tax", f"GST {rate}%", "Sales tax", "VAT")), tax, TAX)
        )
        total += tax
        if cash and rng.random() < 0.15:
            tip = total * rng.choice((10, 15, 18)) // 100
            rows.append(("Tip", tip, TIP))
            total += tip
    rows = rows[: max(0, room - 1)] if room - 1 < len(rows) else rows
    rows.append((rng.choice(_TOTALS), total, TOTAL))
    if cash and room - len(rows) >= 2 and rng.random() < 0.5:
        given = -(-total // 500) * 500 if rng.random() < 0.7 else total + rng.randrange(2000)
        rows += [(rng.choice(("Cash", "CASH", "Paid", "Tendered")), given, CASH), ("Change", given - total, CHANGE)]
    elif cash and room - len(rows) >= 1 and rng.random() < 0.4:
        rows.append((rng.choice(("VISA", "Card", "MasterCard", "Debit card")), total, LABELED))
    indent = rng.choice((0, 0, 0, 0.35)) * sheet.width if sheet.columns > 20 else 0
    large = rng.random() < 0.25
    for label, value, topic in rows:
        letters = sheet.bold if topic is TOTAL and rng.random() < 0.7 else sheet.text
        if topic is TOTAL:
            sheet.add(divider(sheet)) if sheet.rows > 2 else None
            letters = sheet.title if large and sheet.title.size < 1.5 * sheet.size else letters
        sheet.add(_sum_row(sheet, label, sheet.money(value), (letters, indent, topic)))


def _sum_row(sheet: Sheet, label: str, amount: str, looks: tuple[Lettering, float, Topic]) -> Row:
    letters, indent, topic = looks
    fact = Fact(topic, label.lower()) if topic is LABELED else Fact(topic)
    amount = shorten(amount, letters, sheet.width - indent)
    end = sheet.width - letters.width(amount)
    label = shorten(label, letters, max(1.0, end - 0.6 * sheet.size - indent))
    if indent + letters.width(label) > end:
        return sheet.line(amount, fact, letters, "right")
    return Row((Cell(label, letters, indent, end), Cell(amount, letters, end, sheet.width, "right", fact)))


def _invoice_details(sheet: Sheet) -> None:
    """Add number, dates and customer: as a list, or the customer at the left and the list at the right."""
    rng, page = sheet.rng, sheet.page
    issued, customer = values.a_day(rng), person(sheet)
    day, due = sheet.day(issued), sheet.day(issued + timedelta(days=rng.choice((7, 10, 14, 21, 30, 45, 60))))
    if rng.random() < 0.4:
        customer = values.brand(rng, sheet.split)
    label = rng.choice(("{} No", "{} number", "{} #", "No", "{} no.")).format(page.name.capitalize())
    pairs = [
        Pair(label, values.code(rng), Fact(NUMBER, page.name)),
        Pair(rng.choice(("Date", "Date", f"{page.name.capitalize()} date", "Issued")), day, Fact(DATE, page.name)),
        Pair(rng.choice(("Due date", "Due", "Payment due", "Pay by")), due, Fact(DUE)),
        pair(rng, rng.choice(("PO number", "Customer ID", "Ref", "Account", "Terms")), values.code(rng)),
    ]
    pairs = [pairs[0], *(item for item in pairs[1:] if rng.random() < 0.75)]
    to = rng.choice(("Bill to:", "Bill to", "To:", "Customer:", "Billed to:", "Sold to:"))
    half = 0.48 * sheet.width
    if sheet.columns > 24 and sheet.rows > 12 and rng.random() < 0.6:
        lines = [to, customer, names.street(rng, sheet.split), values.town(rng, sheet.split)]
        facts = (None, Fact(CUSTOMER, page.name), None, None)
        left = Stack([sheet.line(line, fact, None, "left", half) for line, fact in zip(lines, facts, strict=True)])
        right = key_values(sheet, pairs, half)
        sheet.add(sheet.gap(0.4), two_columns(sheet, (left, right), (half, half), 0.04 * sheet.width))
        return
    pairs.append(Pair(to.rstrip(":"), customer, Fact(CUSTOMER, page.name)))
    while pairs and len(pairs) > max(1, sheet.rows - 6):
        pairs.pop(rng.randrange(len(pairs)))
    block = key_values(sheet, pairs)
    while block.height > sheet.room - 5 * sheet.text.height and pairs:
        pairs.pop()
        block = key_values(sheet, pairs)
    sheet.add(block)


def shopping_list(sheet: Sheet) -> None:
    """Compose a list of things to buy or to do."""
    rng, page = sheet.rng, sheet.page
    page.name = rng.choice(("list", "note"))
    title = rng.choice(("Shopping list", "To do", "Todo", "Groceries", "To buy", "Packing list", "Remember", "Notes"))
    sheet.add(heading(sheet, title), sheet.gap(0.3))
    count = sheet.count(14)
    if rng.random() < 0.5:
        sheet.add(bullets(sheet, count))
    else:
        mark = rng.choice(("- ", "* ", "", "[ ] "))
        room = sheet.width - sheet.text.width(mark)
        entries = [shorten(values.article(rng, sheet.split), sheet.text, room) for _ in range(count)]
        sheet.add(*(sheet.line(mark + entry) for entry in entries))
    page.facts.append((Fact(COUNT, rng.choice(("items", "entries"))), str(count)))
