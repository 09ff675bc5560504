"""More everyday English than ``words``: further words, and forms of all words, each in one split."""

from functools import lru_cache

from ..seeding import only
from ..words import COMMON_WORDS

MORE_WORDS = tuple(
    """
    abroad absence accident accurate achieve action active actor adapt adult advance advantage adventure advice affair
    afford afternoon agency agenda agent agreement aid aim airport alert alive allow alter amazing ambition amuse
    analysis ancient angry announce annual anxious apart apologize apparent appeal appear appetite appointment approve
    argue arise arrange arrival artist aside aspect assist assume athlete attach attempt attend attention attic attract
    auction audience author average avoid award aware awful bacon badge bait bakery balcony banner barrel barrier basic
    basin battery battle beard beauty because become beetle beneath benefit beside beyond bicycle bishop biscuit bitter
    blame blend bless blind blond bloom blossom bold bomb bonus boost bore boss bother bounce boundary bowl brain brake
    brand breeze brief brilliant broadcast bronze bubble budget bug bullet bundle bureau burst butcher butterfly
    cabbage cage calculate calendar campaign canal candidate candy canvas capable capital captain capture carbon career
    careful cargo carpet carrot cartoon cash casual catalog category cattle cave celebrate cement century ceremony
    certain challenge champion channel chapter character charity charm chart chase cheap cheer chef chemical cherry
    chief chimney chin chip chocolate choir chop chorus church cinema circuit citizen civil claim clap classic clay
    cliff clinic coal coal coast code collar colony column comedy comfort command comment commit community compete
    compose concept concern conclude concrete conduct conference confirm conflict confuse connect conscious consider
    consist constant construct consume contain content contest context continue contract contrast contribute control
    convert convince cooker cottage council counter courage cousin crack craft crash crawl crazy creature crew cricket
    crime crisis critic crop crude cruel cruise crush crystal cube culture cupboard cure curious curl custom cycle
    dairy dam deal debate decade decent deck declare decline decorate decrease defeat defend define degree delay
    delicate delight demand democracy deny department depend describe desert deserve design desire dessert destroy
    determine devote diagram dialog diamond diary diet differ digital dim diploma direction director disagree disappear
    disaster discover discuss disease display distant distinct district divide divorce dolphin domestic donate dose
    dragon drama drawer drill drum dull duty eager eagle earnings easily eastern echo economy edition editor educate
    effect effort elbow elect elegant element elephant embrace emerge emotion emphasis employ enable encourage enemy
    enormous entire environment envy episode equip error escape essay establish estate evidence evil evolve examine
    exceed excellent exchange excite excuse execute exercise exhibit exist expand expense experience explode explore
    export express extend external extreme fabric facility fade fail faint faith false fancy fantastic fare fascinate
    fashion fate favorite feature federal fellow female ferry festival fetch fever fiction fierce finance firm fitness
    flame flash flavor flexible float flood fluid foam focus fold folk fond forbid force foreign forever formal formula
    fortune foundation fountain fox fragile frame freedom freeze freight frequent fridge frog frost frown fuel function
    fund funeral funny furniture gallery gap garage garlic gather gaze gear gene generate genius genuine gesture ghost
    giant ginger glance globe glory glow glue govern grab grace grade graduate grammar grant graph grateful grave gravy
    greet grill grip guarantee guilty gym habit hail hairdresser halt handbag hang harbor harm harvest hate hazard
    headline heap heaven hedge heel helmet hero hesitate hide hint hire hobby honor hood hook horn horror host human
    humble humor hunt hurt hut identify ignore illegal illness image imagine impact import impress improve include
    income increase indeed indicate industry infant inform initial injury inner innocent insect insert inside insist
    inspect inspire install instance instead institute instrument insurance intend interest internal internet interview
    introduce invest invite involve issue itch ivory jeans jewel jungle junior jury justice keen kidney kit knee knot
    labor lack landscape lane laptop laser latest launch lawn lawyer layer lazy lead league leak lean leap legal legend
    leisure lens liberty license likely limb linen link liquid literature litter liver lobby logic lonely loose lorry
    lounge lover loyal luggage lung luxury magic magnet maid maintain major male manner manual marble march margin
    marine marriage mass master mate mathematics mature maximum mayor medal media medical memory mental mention menu
    merchant mercy mere merge mess method midnight military mill mineral minimum minister minor miracle mission mistake
    mixture mobile mode moisture monkey mood moral mosquito motion motive movement multiply muscle museum mushroom
    mystery myth nasty native navy neat negative neglect nerve nest neutral nightmare noble nod normal novel nowhere
    nuclear nursery obey object observe obtain obvious occasion occupy occur odd offend olive omit onto opera operate
    opinion oppose option orchestra ordinary organ origin otherwise outcome outdoor outfit outline outside owe oxygen
    pace package painful pale panel panic parade paradise parcel parking parliament partner passage passenger passion
    passport pasta patch patient pattern pause payment peach peak peanut peel penalty pension perform perhaps permit
    persuade pet phase philosophy phrase physical piano pile pill pillow pitch planet platform pleasant plot plug plus
    poem poet poison pole polish polite politics poll pond pool popular population porch portion portrait position
    possess possible postpone potential pottery poverty powder practice praise pray precious precise predict prefer
    prepare presence present preserve president pressure pretend prevent previous pride priest primary prince princess
    principle prior prison private probable proceed process profession professor profile program progress project
    promise promote proper propose protect protein protest proud provide province psychology pub publish punish pupil
    puppy purchase pure purpose pursue puzzle pyramid qualify queue quit quote race racket range rank rapid rare rat
    ratio raw ray react realize rebel recall recent recipe recognize recommend recover recycle reduce refer reflect
    reform refresh refuse region register regret reject relate relax release relevant relief religion rely remark
    remedy remind remote remove renew replace represent republic reputation rescue research reserve resign resist
    resolve resort resource respect respond responsible restore restrict retail retire reveal revenue reverse review
    revise reward rhythm ribbon rifle riot ripe risk rival roast robot rocket rod role romantic rotten royal rub rude
    ruin rumor rural rush sack sacred sad saddle sake salmon sample sandwich satellite satisfy scale scan scarce scene
    schedule scheme scissors scratch scream screw script sculpture seal search season section sector secure seed seek
    segment select selfish senior sensible sentence separate sequence series session settle severe sew shallow shame
    shed shelter shift shock shoot shore shrink shut sight signal significant silk silly similar sincere sink site
    situation skill skirt slave sleeve slide slight slim slip slope smooth snack snake soccer social society socks soda
    sofa software soldier solid solution solve somehow somewhat sore sort soul source spark specific spectacular sphere
    spice spider spill spin spirit split spoil sponsor spot spray spread squeeze stable staff stain stake stamp stare
    state statement static statue status steady steal steep stem stir stitch stomach strain strategy strawberry stream
    strength stress stretch strict strike string strip stripe structure struggle stuff stupid style submit substance
    subtle suburb succeed such sudden suffer suggest suitable sum summit superb support suppose surgery surprise
    surround survey survive suspect sustain swallow swap swear sweat sweep swing switch symbol sympathy symptom system
    tackle tactic talent tank target task teenager telephone temple temporary tend tennis tension terminal terrible
    territory text theater theme theory therefore thief thorough threat throat throw thumb thunder tide tidy tight
    timber tiny tip tire tissue toast tobacco toe toilet tone tongue topic torch tough tour tournament trace tradition
    tragedy trail transfer transform translate transport trap trash treasure treat treatment trend trial tribe trick
    trousers tune tunnel twin twist typical ugly ultimate unable underground understand unfair uniform union unique
    unit universe university unknown unless unlike unusual upset urban urge urgent useful usual utility vacation
    vaccine vacuum valid van vanish variety various vary vast vehicle venture version victim victory video viewer
    violent virtue virus vision vital vitamin vivid vocabulary volume volunteer vote wage wagon waist wander warn
    warrior wealth weapon weave web wedding weed weekend weigh weird western whale whatever wheat whereas whether
    whisper whistle widow width willing wipe wisdom within without witness wolf wonderful workshop worm worry worthy
    wound wrist yell yoga zoom
    """.split()
)
"""Words of everyday English that ``COMMON_WORDS`` lacks."""

_VOWELS = "aeiou"


@lru_cache
def vocabulary(split: str) -> tuple[str, ...]:
    """Return all listed words and their forms that belong to a split, in a fixed order."""
    stems = dict.fromkeys((*COMMON_WORDS, *MORE_WORDS))
    forms = (form for stem in stems for form in (stem, stem, *_forms(stem)))
    return only(split, tuple(forms))


def _forms(word: str) -> tuple[str, ...]:
    """Return spellings with endings of plurals, verbs and adverbs."""
    if len(word) < 4:
        return (f"{word}s",)
    if word.endswith("e"):
        return f"{word}s", f"{word}d", f"{word[:-1]}ing"
    if word.endswith("y") and word[-2] not in _VOWELS:
        return f"{word[:-1]}ies", f"{word[:-1]}ied", f"{word}ing"
    if word.endswith(("s", "x", "ch", "sh")):
        return f"{word}es", f"{word}ed", f"{word}ing"
    return f"{word}s", f"{word}ed", f"{word}ing", f"{word}er", f"{word}ly"
