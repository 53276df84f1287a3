"""Words that the rules of ``grammar`` and ``repairs`` know."""

COPULAS = {
    "is", "are", "was", "were", "be", "been", "being", "'s", "'re", "looks", "look", "seems",
    "seem", "appears", "appear", "becomes", "become", "stays", "stay", "remains", "remain",
    "feels", "feel", "turns", "turn",
}  # fmt: skip

DEGREES = {
    "very", "highly", "extremely", "really", "quite", "so", "too", "rather", "fairly",
    "slightly", "somewhat", "incredibly", "absolutely", "completely", "totally", "more", "most",
    "less", "least", "all", "next", "also", "just", "only", "almost", "several", "many", "few",
    "some", "various", "multiple", "mostly", "mainly", "partly", "largely", "nearly", "entirely",
    "fully",
}  # fmt: skip

PICTURE_WORDS = {
    "photo", "photograph", "picture", "image", "painting", "drawing", "sketch", "illustration",
    "render", "rendering", "portrait", "shot", "close-up", "closeup", "close", "up", "view",
    "scene", "snapshot", "artwork", "watercolor", "watercolour", "photography", "headshot",
    "still", "cartoon", "depiction", "etching", "engraving", "doodle", "footage", "wallpaper",
    "art", "fanart", "design", "photos", "pictures", "images", "depictions", "selfie",
    "collage", "mosaic", "screenshot",
}  # fmt: skip

PICTURES = {"of", "showing", "depicting", "featuring", "with", "from", "shows", "depicts"}
"""What stands between a picture word and what the picture shows."""

AMOUNTS = {
    "pair", "pairs", "bunch", "group", "groups", "piece", "pieces", "slice", "slices", "set",
    "sets", "lot", "lots", "variety", "series", "kind", "kinds", "type", "types", "sort",
    "sorts", "couple", "number", "numbers", "plenty", "dozen", "dozens", "hundreds",
    "thousands", "assortment", "array", "selection", "touch", "hint", "bit", "majority",
    "collection", "spectrum", "multitude", "range", "amount", "abundance", "host", "part",
    "parts", "form", "forms", "trio", "duo", "mix", "burst", "mixture", "coat", "ton",
}  # fmt: skip
"""Words that before "of" count or measure the noun that follows."""

ACTIONS = {
    "sitting", "standing", "lying", "running", "walking", "playing", "eating", "flying",
    "jumping", "sleeping", "holding", "wearing", "riding", "swimming", "looking", "reading",
    "hanging", "resting", "leaning", "floating", "chasing", "drinking", "carrying", "landing",
    "climbing", "crossing", "catching", "feeding", "driving", "pulling", "pushing", "throwing",
    "kicking", "dancing", "hugging", "kissing", "licking", "biting", "digging", "hiding",
    "falling", "watching",
}  # fmt: skip

PLACES = {
    "left", "right", "top", "front", "side", "middle", "center", "centre", "background",
    "foreground", "bottom", "back", "distance", "rear", "edge", "corner", "end", "sides", "outside",
    "inside", "interior", "opposite", "vicinity", "midst", "place",
}  # fmt: skip

PAINTS = {
    "painted", "colored", "coloured", "dyed", "tinted", "stained", "glazed",
}  # fmt: skip

COLOR_WORDS = {
    "red", "orange", "yellow", "green", "blue", "pink", "purple", "brown", "gray", "grey",
    "black", "white", "golden", "gold", "silver",
}  # fmt: skip

EQUIPMENT = {
    "parking", "skating", "bowling", "gardening", "boating", "camping", "flying", "rocking",
    "hiking", "running", "sewing", "washing", "rolling", "cutting", "cooking", "baking", "dining",
    "swimming", "fishing", "sleeping", "skiing", "climbing", "glowing", "blooming", "living",
    "serving", "mixing", "ironing", "shopping", "knitting", "boxing", "wedding", "evening",
    "steaming", "flowing", "working", "walking", "riding", "reading", "writing", "drawing",
}  # fmt: skip
"""Words in -ing that stand before a noun more often than they begin an action."""

ING_NOUNS = {
    "building", "painting", "ring", "wing", "king", "string", "ceiling", "clothing", "railing",
    "earring", "awning", "icing", "lighting", "pudding", "swing", "sling", "spring", "wedding",
    "morning", "evening", "bedding", "siding", "flooring", "stuffing", "filling", "topping",
    "frosting", "lining", "wiring", "packaging", "seating", "shelving", "stocking", "setting",
    "drawing", "opening", "crossing", "rendering", "clearing", "dumpling", "duckling", "herring",
    "lettering", "carving", "marking", "trimming", "coating", "covering", "padding", "netting",
}  # fmt: skip

ADVERBS = {
    "away", "together", "up", "down", "out", "outside", "inside", "nearby", "upside", "below",
    "above", "there", "here", "around", "back", "forward", "home", "overhead", "apart", "aside",
    "ahead", "behind", "off", "over", "still", "then", "outdoors", "indoors", "alone",
    "downstairs", "upstairs", "left", "right", "underneath", "sideways", "next", "too", "forth",
    "everywhere", "ashore", "underfoot", "once", "twice", "again", "well", "half", "much",
}  # fmt: skip

POSTNOMINAL = ADVERBS | {
    "full", "open", "closed", "empty", "asleep", "awake", "alone", "close", "high", "tall",
    "wide", "long", "deep", "old", "available", "visible", "ready", "similar", "alive", "bare",
    "aglow", "ablaze", "adrift", "afloat", "covered", "low", "big", "large", "small", "shut",
    "upright", "naked", "clean", "dirty", "wet", "dry", "cold", "hot", "first", "last", "other",
}  # fmt: skip
"""Adjectives and adverbs that may stand behind their noun."""

CLOSED = {
    "i", "you", "he", "she", "it", "we", "they", "me", "him", "her", "us", "them", "one", "ones",
    "itself", "himself", "herself", "themselves", "each", "another", "other", "others", "this",
    "that", "these", "those", "who", "whom", "whose", "which", "what", "someone", "something",
    "everyone", "everything", "nothing", "anything", "anyone", "nobody", "somebody", "mine",
    "yours", "hers", "ours", "theirs", "his", "its", "their", "all", "both", "there", "none",
}  # fmt: skip


def _forms(verbs: str, pasts: str) -> dict[str, str]:
    """Every form of a verb -> "base", "s" or "past"."""
    forms: dict[str, str] = {}
    for verb in verbs.split():
        stem = verb.removesuffix("e")
        third = verb + ("es" if verb.endswith(("s", "sh", "ch", "x")) else "s")
        forms |= {verb: "base", third: "s", stem + "ed": "past", verb + verb[-1] + "ed": "past"}
    return forms | dict.fromkeys(pasts.split(), "past")


VERBS = _forms(
    "rest nap gleam glint sparkle shimmer glow glisten flicker flash bake stir cast cook boil "
    "simmer sizzle perch lounge snooze snore doze graze roam wander stroll lean hang dangle drape "
    "float drift hover soar flutter bloom blossom grow sprout wilt sway swing spin twirl dance "
    "leap bounce roll slide slip tumble crash smash collide splash drip pour spill melt burn "
    "crackle smoke steam squeak creak rattle rustle clatter clang echo buzz hum chirp bark howl "
    "roar purr meow gallop trot sprint race chase hunt peck nibble chew lick sniff smell taste "
    "cut slice chop peel carve dig rake sweep scrub wash wipe dry polish clean scratch scrape "
    "tear rip crumple crack shatter break crush press squeeze stretch bend twist fold wrap tie "
    "cover hide hug cradle cuddle clasp grip grab touch brush stroke comb paint sketch draw "
    "write type read study watch stare gaze glance peer wave nod smile laugh cry shout sing "
    "play kick throw toss catch pull push drag carry lift hold wear match blend mix contrast "
    "clash complement reflect mirror shine dazzle lie sit stand sleep sail swim dive surf ski "
    "skate fly land ride drive crawl climb jump hop run walk march loom "
    "surround support hit strike fall cling attach adorn decorate fill "
    "guard protect keep contain serve greet meet point drown sprawl curl huddle "
    "nestle beckon glide skid whirl swirl snake wind curve arch spread scatter dot speckle ",
    "cast cut hit fell lay sat stood hung rose grew shone slid swung spun bent swept tore wore "
    "held drew wrote threw caught stuck clung wound sank ran swam flew rode drove broke froze "
    "burnt leapt fed led bled fled shot slept kept spread beat blew bit dug hid laid lit met "
    "rang sang sought stank struck wept wove crept towered",
)
"""What things in pictures do, in words that a small pipeline may read as nouns."""

_ALSO_NOUNS = """
rest bake cook bloom blossom swing slide spill smoke steam buzz hunt slice peel rake scrub polish
scratch crack press twist fold tie cover hide hug touch brush stroke comb paint sketch study watch
glance wave smile shout play kick throw catch drag lift match mix blend contrast mirror stand sail
dive surf ski skate fly land ride drive jump hop run walk march strike fall guard point glide
curve arch spread dot curl drip nap cast cut roll drape slip crash smash splash burn rattle echo
chirp bark cry sprout type draw ring
"""
NOUNS_AS_WELL = frozenset(_ALSO_NOUNS.split())
"""Verbs that are nouns, too: taken for verbs only behind a definite subject."""

MATERIALS = {
    "plastic", "metal", "glass", "wood", "leather", "rubber", "fabric", "stone", "brick", "silk",
    "cotton", "wool", "marble", "steel", "iron", "copper", "brass", "bronze", "ceramic", "clay",
    "paper", "cardboard", "velvet", "denim", "lace", "concrete", "granite", "porcelain", "crystal",
    "wicker", "bamboo", "straw", "linen", "satin", "chrome", "diamond", "pearl", "ivory", "jade",
}  # fmt: skip
"""Nouns that say what another noun is made of."""

SHAPES = {
    "oval", "square", "round", "crescent", "teardrop", "cube", "triangular", "rectangular",
    "circular", "pentagonal", "oblong", "pyramidal", "conical", "cylindrical", "spherical",
    "hexagonal", "octagonal", "cubic",
}  # fmt: skip
"""Shapes, as nouns or adjectives, that stand before a noun."""
