"""Words for drawn text: a list of everyday English, and any number of invented words.

Every word, listed or invented, belongs to one split by its hash: held-out text shares no word with training.
"""

import random
from functools import lru_cache

from .seeding import only, split_of

# Names of months are left out: dates write them in both splits.
COMMON_WORDS = tuple(
    """
    able about above accept account across act active add address after again against age agree air alarm
    all allow almost alone along already also always among amount angle animal answer any apple area arm
    around arrive art ask at aunt autumn away baby back bad bag bake balance ball bank bar base basket
    bath beach bean bear beat bed before begin behind bell belong below bench best better between big bill
    bird birth bit black blanket block blood blow blue board boat body bone book boot border born borrow
    both bottle bottom bowl box boy branch brave bread break breakfast breath brick bridge bright bring
    broad brother brown brush bucket build burn bus bush busy butter button buy cabin cable cake call calm
    camera camp can candle cap car card care carry case castle cat catch cause ceiling cell centre chain
    chair chalk chance change charge cheap check cheese chest chicken child choice choose circle city
    class clean clear clever client climb clock close cloth cloud club coach coast coat coffee coin cold
    collect colour comb come common company compare complete computer concert contact cook cool copper
    copy corn corner correct cost cotton cough count country couple course court cover cow cream credit
    cross crowd cry cup current curtain curve customer cut daily damage dance danger dark date daughter
    day dead dear debt decide deep deer deliver dentist deposit depth desk detail develop device dinner
    direct dirty discount dish distance doctor document dog dollar door double doubt down dozen draw dream
    dress drink drive drop dry duck due during dust duty each ear early earn earth east easy eat edge egg
    eight either electric eleven empty end energy engine enjoy enough enter entry equal error even evening
    event ever every exact example except expect expert explain extra eye face fact factory fair fall
    family famous far farm fashion fast father fault feed feel fence few field fifty fight figure fill
    film final find fine finger finish fire first fish five fix flag flat flight floor flour flow flower
    fly fold follow food foot forest forget fork form forward four frame free fresh friday friend from
    front fruit full future game garden gas gate general gentle gift girl give glad glass glove go goal
    goat gold good grain grand grape grass great green ground group grow guard guest guide guitar hair
    half hall hammer hand handle happy harbour hard hat have head healthy hear heart heat heavy height
    help hen here high hill history hold hole holiday home honest honey hook hope horse hospital hot hotel
    hour house how hundred hungry hurry ice idea inch index ink inside invoice iron island item jacket jam
    jar jelly join joke journey judge juice jump just keep kettle key kick kind king kitchen kite knee
    knife knock know label ladder lady lake lamp land language large last late laugh law leaf learn
    leather leave left leg lemon lend length lesson letter level library lid life lift light like limit
    line lion list listen little live loan local lock long look lose loud love low lucky lunch machine
    mail main make manager many map mark market match meal measure meat medium meet member message metal
    middle mile milk million mind minute mirror miss mix model modern moment monday money monitor month
    moon more morning mother motor mountain mouse mouth move much music nail name narrow nation nature
    near neck need needle never new news next nice night nine noise none north nose note nothing notice
    now number nurse nut oak ocean off offer office often oil old once one onion only open orange order
    other our out oven over owner page paint pair palace pan paper parcel parent park part party pass past
    path pay peace pear pen pencil people pepper perfect period person phone photo piano picture piece
    pilot pink pipe place plan plane plant plastic plate play please plenty pocket point police poor post
    pot potato pound power press pretty price print prize problem produce profit proof public pull pump
    purple purse push put quality quantity quarter queen question quick quiet quite rabbit radio rail rain
    raise rate razor reach read ready real reason receipt record red refund regular remain remember rent
    repair repeat reply report request rest result return rice rich ride right ring rise river road rock
    roll roof room root rope rose rough round route row rubber rule run safe sail salad salary sale salt
    same sand saturday sauce save saw say school science screen sea seat second secret see seed sell send
    sense serial serve service seven several shade shadow shape share sharp sheep sheet shelf shine ship
    shirt shoe shop short should shoulder shout show side sign silent silver simple since sing sister sit
    six size skin skirt sky sleep slice slow small smart smell smile smoke smooth snow soap soft soil sold
    some song soon sound soup south space spare speak special speed spend spoon spring square stage stairs
    stamp stand star start station stay steam steel step stick still stock stone stop store storm story
    straight strange street strong student study subject subtotal sugar suit summer sun sunday supper
    supply sure surface sweet swim table tail take talk tall tap taste tax taxi tea teach team tell ten
    tent test thank their there thick thin thing think third thirty this thousand thread three through
    thursday ticket tie time tin tired title today toe together tomato tomorrow tool tooth top total touch
    towel tower town toy track trade traffic train travel tree trip trouble truck true trust try tube
    tuesday turn twelve twenty twice two type umbrella uncle under unit until upper use usual valley value
    van vegetable very view village violin visit voice wait walk wall want warm wash waste watch water
    wave way weak wear weather wednesday week weight welcome well west wet what wheel when where while
    white who wide wife wild win wind window wine wing winter wire wise with woman wonder wood wool word
    work world worth wrap write wrong yard year yellow yes yesterday you young zebra zero zone
    """.split()
)

_ONSETS = (
    "b bl br c ch cl cr d dr f fl fr g gl gr h j k kn l m n p ph pl pr qu r "
    "s sc sh sk sl sm sn sp st str sw t th tr v w wh y z"
).split()
_NUCLEI = "a ai au e ea ee ei i ia ie io o oa oi oo ou u ui y".split()
_CODAS = "b ck ct d ff g k l ll lm lt m mp n nd ng nk nt p r rd rk rm rn rt s sh sk ss st t th v w x z"
_CODAS_OR_NONE = [*_CODAS.split(), "", "", "", ""]


@lru_cache
def common_words(split: str) -> tuple[str, ...]:
    """Return the listed words of a split."""
    return only(split, COMMON_WORDS)


def invented_word(rng: random.Random, split: str) -> str:
    """Make up a pronounceable lower-case word of one to three syllables that belongs to the split."""
    while True:
        word = "".join(_syllable(rng) for _ in range(rng.choice((1, 2, 2, 3))))
        if len(word) > 1 and split_of(word) == split:
            return word


def any_word(rng: random.Random, split: str) -> str:
    """Draw a listed or an invented word, lower case, in equal parts."""
    return rng.choice(common_words(split)) if rng.random() < 0.5 else invented_word(rng, split)


def _syllable(rng: random.Random) -> str:
    return rng.choice(_ONSETS) + rng.choice(_NUCLEI) + rng.choice(_CODAS_OR_NONE)
