"""Nouns that a picture cannot show: a hand-written list, and endings of abstract nouns."""

_LIST = """
ability absence access accuracy achievement action activity addition admiration adoration ambition
adventure advice affection afternoon age agony aim air alarm amusement anatomy anger anguish
anticipation anxiety appeal appearance approach aroma artistry aspect aspiration athleticism
atmosphere attempt attention attitude aura autumn aversion awe balance beauty bedtime beginning
behavior behaviour belief biology birth bliss boredom bravery breeze brightness calm capability
care carefulness cause century championship chance change chaos character chat chemistry childhood
chill choice citizenship claim class clue cold comfort comment commitment communication
companionship comparison compassion complaint complexity composure concentration concept concern
conclusion condition confidence confusion connection consequence contemplation contentment context
contrast control conversation coordination cost courage courtship craftsmanship creativity culture
curiosity danger dawn day death debate decade decision dedication deed defeat delicacy delight
demand depression depth desire despair destiny detail determination devotion dignity dimension
direction disappointment discipline discomfort discovery discussion disgust dismay distance
distress diversity dream dusk duty ease echo ecology economy ecstasy education effect efficiency
effort elegance embarrassment emotion emphasis encouragement end energy engineering enjoyment
enthusiasm envy era essence eternity evening event evidence evil excellence excitement exercise
existence expertise explanation expression fact faith fame fascination fashion fate fatigue favor
favour fear feat feel feeling fitness flair flavor flavour focus force forethought fortune
fragrance freedom freshness friendship fright frustration fun function fury future generation
generosity genius geography gist glamor glamour glee glory goodness gossip grandeur gratitude
greed grief growth guilt happiness hardship harmony haste hate hatred health heat height help
heritage history homework honesty honor honour hope horror hospitality hour humor humour hurry
hygiene idea identity imagination impact importance impression individuality influence information
ingenuity innocence innovation insight inspiration instinct intelligence intensity intent
intention interest internet intrigue invention irony jealousy job journey joy joyfulness justice
kind kindness kinship knowledge lack laughter laziness leadership legacy leisure length lesson
liberty life lifestyle likelihood logic loss love loyalty luck lust luxury magic majesty manner
marvel masterpiece mastery math matter maturity meaning media meditation melancholy melding melody
membership memory mercy method midnight mind minute misery moment momentum month mood morale
morality morning motion motivation movement music mystery myth nature need nerve news night
nighttime noise nonsense noon nostalgia notion obsession odor odour opinion opportunity option
opulence order origin ownership pain panic partnership passage passion past patience pause peace
perception perfection performance peril period permission persistence personality perspective
phase phenomenon philosophy physics pleasure plight poise politics possibility poverty power
practice praise prayer precision prestige pride privacy privilege problem process profit progress
project promise proof protection prowess purity purpose quality quantity quest question rage
reality reason recognition recreation refinement refuge regard regret relationship relaxation
release relief remorse reputation resemblance resilience resolve respect respite response rest
result revenge rhythm riot risk ritual romance rule sadness safety sake satisfaction scent science
season seclusion second secret self sensation sense serenity service severity shame shock
significance silence simplicity sin sip size skill sleep smell social solace solitude song
sophistication sorrow soul sound speech speed splendor splendour sportsmanship spring stability
stamina state status stealth stillness story strength stress struggle style success suffering
suggestion summer support surprise survival suspense suspicion sway symmetry sympathy talent talk
task taste technology temper temperature temptation tenacity tendency tension terror testament
theme theory therapy thought threat thrill time today tomorrow tone tonight topic torment touch
tradition tragedy training tranquility tranquillity trend tribute triumph trouble trust truth tune
type unity urge use value variety velocity vengeance version vibe vibes victory vigor vigour
virtue vision vitality voice want warmth way wealth week weekend weight welfare whim whimsy
wickedness width will wind winter wisdom wish wit woe wonder wonderment work workmanship workout
worry worship worth wrath year yesterday youth zeal zest
"""
UNSEEN = frozenset(_LIST.split())

_SHOWN = """
city university celebrity deity cavity facility community vanity nativity amenity wilderness
lioness harness governess witness baroness patroness likeness business prism organism mechanism
neighborhood neighbourhood kingdom ambulance audience entrance appliance conference residence
substance sequence
"""
SEEN = frozenset(_SHOWN.split()) | {
    "weights",
    "milky way",
    "hot spring",
    "coil spring",
    "party favor",
    "party favour",
}
"""Nouns with such an ending that a picture can show, and phrases with a noun of the list."""

_ENDINGS = ("ness", "ity", "ism", "hood", "dom", "ance", "ence")


def cannot_be_seen(noun: str, before: str = "") -> bool:
    """Whether a noun (singular or plural) names nothing that a picture can show; ``before`` is the
    word before it."""
    word = noun.lower()
    forms = {word, word.removesuffix("s"), word.removesuffix("es")}
    if word.endswith("ies"):
        forms.add(word[:-3] + "y")
    if forms & SEEN or f"{before.lower()} {word}" in SEEN:
        return False
    abstract = any(
        form.endswith(ending) and len(form) > len(ending) + 2
        for form in forms
        for ending in _ENDINGS
    )
    return abstract or bool(forms & UNSEEN)
