"""Layouts of signs, posters, notes, labels and plain user interfaces."""

from .. import names
from . import prose, values
from .blocks import Block, Cell, Columns, Panel, Row, Stack, text_row
from .facts import BUTTON, CHECKED, DATE, HOURS, LABELED, NUMBER, PHONE, RECIPIENT, SENDER, TIME, TITLE, Fact
from .page import Fill
from .parts import Pair, bullets, divider, heading, key_values, pair, person, prose_block, some_pairs
from .sheet import Sheet

_BUTTONS = (
    "OK",
    "Cancel",
    "Save",
    "Delete",
    "Yes",
    "No",
    "Apply",
    "Close",
    "Next",
    "Back",
    "Send",
    "Sign in",
    "Help",
    "Open",
)
_MENUS = ("File", "Edit", "View", "Tools", "Help", "Home", "Search", "Settings", "Profile", "About", "Window", "Insert")
_FIELDS = ("Name", "User name", "Password", "E-mail", "Search", "Address", "City", "Title", "Port", "Server", "Folder")
_OPTIONS = (
    "Remember me",
    "Send updates",
    "Dark mode",
    "Show hidden files",
    "Enable sound",
    "Auto save",
    "Use proxy",
    "Full screen",
    "Large text",
    "Check spelling",
)
_SIGNS = (
    "STOP",
    "EXIT",
    "OPEN",
    "CLOSED",
    "NO PARKING",
    "Push",
    "Pull",
    "No smoking",
    "Wet floor",
    "Private",
    "Keep out",
    "For sale",
    "Danger",
    "No entry",
    "Please wait here",
    "Staff only",
    "Toilets",
    "Fire exit",
    "One way",
    "Slow",
    "Reserved",
    "Sold out",
    "Welcome",
    "Mind the step",
    "Ring the bell",
    "Out of order",
)


def sign(sheet: Sheet) -> None:
    """Compose a sign: few words in large letters, at times hours, a telephone number or a discount."""
    rng, page = sheet.rng, sheet.page
    page.name = rng.choice(("sign", "sign", "poster"))
    count = max(1, min(rng.choice((1, 1, 2, 2, 3)), sheet.room // sheet.title.height))
    for _ in range(count):
        words = rng.choice(_SIGNS) if rng.random() < 0.3 else prose.saying(rng, sheet.split)
        sheet.add(sheet.line(words, None, sheet.title, "center"))
    extras: list[Row] = [
        sheet.line(values.hours(rng), Fact(HOURS), None, "center"),
        sheet.line(values.phone(rng), Fact(PHONE), None, "center"),
        sheet.line(
            rng.choice(("Sale", "Up to", "All items", "Save")) + f" {5 * rng.randint(1, 16)}%", None, None, "center"
        ),
        sheet.line(sheet.day(values.a_day(rng)), Fact(DATE, page.name), None, "center"),
        sheet.line(prose.phrase(rng, sheet.split), None, None, "center"),
    ]
    for extra in rng.sample(extras, rng.choice((0, 0, 1, 1, 2, 3))):
        sheet.add(sheet.gap(0.3), extra)
    _frame(sheet)


def notice(sheet: Sheet) -> None:
    """Compose a notice of an event or a meeting."""
    rng, page = sheet.rng, sheet.page
    page.name = rng.choice(("notice", "note", "invitation", "poster"))
    sheet.add(heading(sheet, prose.saying(rng, sheet.split)), sheet.gap(0.4))
    if sheet.rows > 3:
        sheet.add(
            prose_block(sheet, sheet.width, min(4, sheet.rows - 2), rng.choice(("left", "center"))), sheet.gap(0.4)
        )
    pairs = [
        Pair(rng.choice(("Date", "When", "Day")), sheet.day(values.a_day(rng)), Fact(DATE, page.name)),
        Pair(rng.choice(("Time", "Start", "Begins")), values.clock(rng), Fact(TIME)),
        pair(rng, rng.choice(("Where", "Place", "Room")), names.street(rng, sheet.split)),
        pair(rng, rng.choice(("Contact", "Host", "Speaker")), person(sheet)),
    ]
    chosen = rng.sample(pairs, rng.randint(1, 4))
    while chosen and not sheet.add(key_values(sheet, chosen, look=rng.choice(("beside", "tab", "spread")))):
        chosen.pop()
    _frame(sheet)


def parcel(sheet: Sheet) -> None:
    """Compose the label of a parcel or a product."""
    rng, page = sheet.rng, sheet.page
    page.name = rng.choice(("label", "parcel"))
    to = rng.choice(("To", "TO", "Ship to", "Deliver to"))
    pairs = [
        Pair(rng.choice(("From", "FROM", "Sender")), person(sheet), Fact(SENDER)),
        Pair(to, person(sheet), Fact(RECIPIENT)),
        Pair(rng.choice(("Tracking", "No", "Order")), values.code(rng), Fact(NUMBER, page.name)),
        *some_pairs(sheet, 3),
    ]
    if rng.random() < 0.5:
        sheet.add(
            heading(sheet, rng.choice(("PARCEL", "FRAGILE", "PRIORITY", values.brand(rng, sheet.split)))),
            divider(sheet),
        )
    chosen = pairs[: sheet.count(len(pairs))]
    while chosen and not sheet.add(key_values(sheet, chosen)):
        chosen.pop()
    _frame(sheet)


def screen(sheet: Sheet) -> None:
    """Compose a plain user interface: a title bar, a menu, fields, options and buttons."""
    rng, page, palette = sheet.rng, sheet.page, sheet.palette
    page.name = rng.choice(("window", "dialog", "screen"))
    padding = max(3, sheet.size // 3)
    bar = sheet.bold.in_ink(palette.on_accent)
    title = rng.choice(
        ("Settings", "Sign in", "New file", "Warning", "Login", prose.phrase(rng, sheet.split).capitalize())
    )
    row = text_row(title, bar, sheet.width - 2 * padding, rng.choice(("left", "center")), Fact(TITLE, page.name))
    sheet.add(Panel(row, padding, palette.accent), sheet.gap(0.4))
    if sheet.rows > 5 and rng.random() < 0.4:
        sheet.add(_menu(sheet), sheet.gap(0.4))
    if sheet.rows > 5 and rng.random() < 0.5:
        sheet.add(prose_block(sheet, sheet.width, 2, "left"), sheet.gap(0.3))
    for label in rng.sample(_FIELDS, rng.randint(1, 4)):
        if sheet.rows > 3:
            sheet.add(_input(sheet, label), sheet.gap(0.4))
    if sheet.rows > 3 and rng.random() < 0.5:
        sheet.add(_options(sheet), sheet.gap(0.3))
    sheet.add(_buttons(sheet))


def note(sheet: Sheet) -> None:
    """Compose a note: a few lines, at times with a heading and a name."""
    rng, page = sheet.rng, sheet.page
    page.name = "note"
    if rng.random() < 0.5:
        sheet.add(heading(sheet, prose.saying(rng, sheet.split)), sheet.gap(0.3))
    if rng.random() < 0.4:
        sheet.add(bullets(sheet, sheet.count(10, sheet.rows - 1)))
    else:
        sheet.add(prose_block(sheet, sheet.width, max(1, min(sheet.rows - 1, rng.randint(1, 6)))))
    if sheet.rows > 1 and rng.random() < 0.5:
        sheet.add(
            sheet.gap(0.5), sheet.line(f"- {names.person(rng, sheet.split)}", None, None, rng.choice(("left", "right")))
        )


def _frame(sheet: Sheet) -> None:
    """Put what was composed on a filled or outlined panel, now and then."""
    rng, palette = sheet.rng, sheet.palette
    padding = max(4, sheet.size // 2)
    if rng.random() > 0.35 or sheet.room < 2 * padding:
        return
    outside = round(0.7 * sheet.margin) + 1
    top = sheet.top - outside
    box = (sheet.left - outside, top, sheet.left + sheet.width + outside, sheet.page.size[0] - top)
    sheet.page.fills.append(Fill(box, None, palette.line, rng.choice((0, 0, 8)), max(1, sheet.size // 12)))


def _menu(sheet: Sheet) -> Block:
    rng, letters = sheet.rng, sheet.text
    cells, left = [], 0.0
    for word in rng.sample(_MENUS, 6):
        end = left + letters.width(word)
        if end > sheet.width:
            break
        cells.append(Cell(word, letters, left, end))
        left = end + sheet.size
    return Row(tuple(cells)) if cells else sheet.line("Menu")


def _input(sheet: Sheet, label: str) -> Block:
    """Return a label above or beside a field with a value."""
    rng, palette = sheet.rng, sheet.palette
    padding = max(2, sheet.size // 4)
    value = "********" if label == "Password" else values.labeled_value(rng, sheet.split)[1]
    fact = Fact(LABELED, label.lower())
    if rng.random() < 0.5 or sheet.columns < 16:
        row = text_row(value, sheet.text, sheet.width - 2 * padding, "left", fact)
        field = Panel(row, padding, palette.tint, palette.line, rng.choice((0, 4)))
        return Stack([sheet.line(label), field])
    half = 0.35 * sheet.width
    row = text_row(value, sheet.text, 0.6 * sheet.width - 2 * padding, "left", fact)
    field = Panel(row, padding, palette.tint, palette.line, rng.choice((0, 4)))
    beside = Panel(sheet.line(label, None, None, "left", half - 2 * padding), padding)
    return Columns(((beside, 0, half), (field, 0.4 * sheet.width, 0.6 * sheet.width)), joined=True)


def _options(sheet: Sheet) -> Block:
    """Return check boxes; one of them is checked."""
    rng = sheet.rng
    names_ = rng.sample(_OPTIONS, rng.randint(2, 3))
    checked = rng.randrange(len(names_))
    rows: list[Block] = []
    for index, name in enumerate(names_):
        mark = "[x]" if index == checked else "[ ]"
        left = sheet.text.width("[x] ")
        cell = Cell(name, sheet.text, left, sheet.width, "left", Fact(CHECKED) if index == checked else None)
        if left + sheet.text.width(name) > sheet.width:
            return sheet.line(name)
        rows.append(Row((Cell(mark, sheet.text, 0, left), cell)))
    return Stack(rows)


def _buttons(sheet: Sheet) -> Block:
    rng, palette = sheet.rng, sheet.palette
    padding = max(3, sheet.size // 3)
    placed: list[tuple[Block, float, float]] = []
    left = 0.0
    words = rng.sample(_BUTTONS, rng.randint(1, 3))
    for index, word in enumerate(words):
        width = sheet.text.width(word) + 4 * padding
        if left + width > sheet.width:
            break
        filled = index == 0
        letters = sheet.text.in_ink(palette.on_accent) if filled else sheet.text
        place = {0: "left", len(words) - 1: "right"}.get(index, "middle")
        fact = Fact(BUTTON, place) if len(words) > 1 else Fact(BUTTON, "")
        row = text_row(word, letters, width - 2 * padding, "center", fact if len(words) > 1 else None)
        color = palette.accent if filled else None
        placed.append((Panel(row, padding, color, palette.line, rng.choice((0, 3, 6))), left, width))
        left += width + sheet.size / 2
    return Columns(tuple(placed), joined=True) if placed else sheet.gap()
