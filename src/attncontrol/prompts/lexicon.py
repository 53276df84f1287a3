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
    "some", "various", "multiple",
}  # fmt: skip

PICTURE_WORDS = {
    "photo", "photograph", "picture", "image", "painting", "drawing", "sketch", "illustration",
    "render", "rendering", "portrait", "shot", "close-up", "closeup", "pair", "bunch", "group",
    "piece", "slice",
}  # fmt: skip

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
    "foreground", "bottom", "back",
}  # fmt: skip

PAINTS = {
    "painted", "colored", "coloured", "dyed", "tinted", "stained", "glazed",
}  # fmt: skip

COLOR_WORDS = {
    "red", "orange", "yellow", "green", "blue", "pink", "purple", "brown", "gray", "grey",
    "black", "white", "golden", "gold", "silver",
}  # fmt: skip
