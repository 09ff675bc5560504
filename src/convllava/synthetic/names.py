"""Names of goods, people, shops and places for documents; each belongs to one split."""

import random
from functools import lru_cache

from .seeding import only
from .words import any_word, invented_word

_GOODS = """
apple|apple pie|bagel|baguette|banana|batteries|beef stew|beer|biscuits|black tea|blanket|blueberries
|bread|broccoli|broom|brownie|burger|butter|cabbage|candles|cappuccino|carrots|cereal|cheddar|cheesecake
|cherries|chicken wings|chips|chocolate|cider|cinnamon roll|clock|coat hanger|cocoa|cod fillet|coffee
|cookies|corn|cotton shirt|crackers|cream|croissant|cucumber|cupcake|curry|doughnut|dumplings|eggs
|envelope|espresso|fish and chips|flat white|flour|fried rice|fruit salad|garlic|ginger ale|gloves|grapes
|green salad|green tea|ham|hammer|honey|hot dog|ice cream|iced tea|jam|kettle|ketchup|lamp|lasagne|latte
|lemonade|lentil soup|lettuce|lime juice|lip balm|macaroni|mango|marmalade|matches|meatballs|milk
|mineral water|mint tea|mocha|muesli|muffin|mug|mushrooms|mustard|nails|napkins|noodles|notebook|nuts
|oat milk|olive oil|olives|omelette|onion rings|onions|orange juice|pancakes|paper bag|pasta|peach tart
|peanut butter|pears|pencil|pepper|pickles|pizza|plaster|plums|popcorn|porridge|postcard|potatoes|pretzel
|prawns|pudding|pumpkin soup|radio|raspberries|ravioli|red wine|rice|risotto|rope|sausage roll|salad
|salmon|salt|sandwich|scarf|scissors|scones|shampoo|shrimp|smoothie|soap|socks|soda|soup|spaghetti|spinach
|sponge|stamps|steak|strawberries|string|sugar|sushi|tacos|tape|tea|toast|tofu|tomato soup|tomatoes
|toothbrush|toothpaste|torch|towel|tuna|turkey|umbrella|vanilla shake|veggie wrap|vinegar|waffles|walnuts
|white wine|yoghurt
"""

_FIRST_NAMES = """
Ada Adam Alan Alice Amy Ana Andrew Anna Ben Bella Carl Carol Chloe Clara Dan David Diana Ed Elena Ella Emil
Emma Eric Eva Felix Fiona Frank Fred Gina Grace Greta Hanna Harry Helen Hugo Ian Ida Igor Iris Ivan Jack
Jane Jim Joan John Jon Julia Karl Kate Ken Kim Lara Laura Leo Lena Liam Lily Lucy Luis Maria Mark Marta Max
Maya Mia Mike Nadia Nick Nina Noah Nora Olga Oscar Otto Pam Paul Pedro Peter Rachel Ray Rita Robert Rosa
Ruth Sam Sara Simon Sofia Steve Sue Tania Ted Theo Tim Tina Tom Tony Uma Vera Victor Wendy Will Yuki Zoe
"""

_LAST_NAMES = """
Abbott Adams Allen Baker Barnes Bauer Bell Bennett Berg Bishop Black Boyd Brooks Burns Butler Carter Chen
Clark Cole Collins Cook Cooper Costa Cox Cruz Dean Diaz Dixon Dunn Ellis Evans Fischer Fisher Ford Foster
Fox Garcia Gibson Gomez Grant Gray Green Hall Hansen Harris Hart Hayes Hill Holmes Howard Hughes Hunt Ito
James Jensen Jones Keller Kelly Khan Kim King Klein Lane Larsen Lee Lewis Lopez Mason Meyer Miller Mills
Moore Morgan Morris Murphy Murray Nelson Novak Olsen Owen Palmer Park Parker Patel Perez Perry Porter Powell
Price Reed Reyes Rice Roberts Rose Ross Rossi Russell Ryan Sato Schmidt Scott Shaw Silva Singh Smith Stone
Suzuki Taylor Torres Turner Wagner Walker Walsh Wang Ward Watson Weber West White Wilson Wong Wood Wright
Young
"""

_SHOPS = """
Bakery Bar Bazaar Bistro Books Boutique Cafe Canteen Catering Cinema Clinic Coffee Corner Deli Diner Express
Fashion Flowers Foods Garage Garden Gifts Grill Grocery Hardware Hotel Inn Kiosk Kitchen Laundry Lounge
Market Motors Music Optics Outlet Pharmacy Pizzeria Plaza Pub Records Restaurant Salon Shoes Shop Sports
Stationery Stop Store Studio Supplies Tavern Tools Toys Trading Travel Wines
"""

_STREETS = "Avenue Close Court Drive Gardens Grove Hill Lane Mews Park Place Road Row Square Street Terrace View Way"


@lru_cache
def goods(split: str) -> tuple[str, ...]:
    """Return the goods of a split, lower case."""
    return only(split, [name.strip() for name in _GOODS.replace("\n", "").split("|")])


def article_name(rng: random.Random, split: str) -> str:
    """Draw the name of an article in lower case: listed goods, or an invented brand."""
    kind = rng.random()
    if kind < 0.6:
        return rng.choice(goods(split))
    if kind < 0.8:
        return f"{any_word(rng, split)} {rng.choice(goods(split))}"
    return invented_word(rng, split)


def person(rng: random.Random, split: str) -> str:
    """Draw the name of a person, at times with an initial."""
    first, last = rng.choice(_listed(_FIRST_NAMES, split)), rng.choice(_listed(_LAST_NAMES, split))
    if rng.random() < 0.2:
        last = invented_word(rng, split).capitalize()
    return rng.choice((f"{first} {last}", f"{first} {last}", f"{first[0]}. {last}"))


def shop(rng: random.Random, split: str) -> str:
    """Draw the name of a business."""
    suffix = rng.choice(_listed(_SHOPS, split))
    owner = rng.choice(_listed(_LAST_NAMES, split))
    word = any_word(rng, split).capitalize()
    return rng.choice((f"{word} {suffix}", f"{owner}'s {suffix}", f"The {word} {suffix}", f"{owner} & {word}", word))


def town(rng: random.Random, split: str) -> str:
    """Draw the name of an invented town."""
    return invented_word(rng, split).capitalize()


def street(rng: random.Random, split: str) -> str:
    """Draw a street and house number."""
    name = f"{any_word(rng, split).capitalize()} {rng.choice(_listed(_STREETS, split))}"
    return f"{rng.randint(1, 199)} {name}"


@lru_cache
def _listed(names: str, split: str) -> tuple[str, ...]:
    return only(split, names.split())
