"""The wording of tags: phrases, and words that make a part of a prompt a tag."""

ALWAYS = (
    (r"(?<!\d)(?:--|[\u2013\u2014])(?=[a-z])\w+"
     r"(?: +[\w.:/-]*\d[\w.:/-]*| +(?:raw|scenic|expressive|cute))?", "a parameter"),
    (r"<\w+:[^>]*>", "a parameter"),
    (r"\bBREAK\b", "a parameter"),
    (r"\b(?:currently )?(?:trending|featured|popular|hot|viral|posted|award[- ]winning) "
     r"(?:on|in|at) (?:art ?station|[\w.]+)(?: hq)?(?: and [\w.]+(?= *(?:,|$)))?", "a tag"),
    (r"\b(?:on )?(?:art ?station|deviant ?art|cg ?society|pixiv(?: fanbox)?|behance|pinterest|"
     r"instagram|flickr|unsplash|shutterstock|500px|zbrush ?central|artstationhq|danbooru)"
     r"(?: hq| contest winner| \d)?\b", "a tag"),
    (r"\b(?:in |at |ultra )?(?:2|4|5|6|8|10|12|16|32|64) ?k\b(?: (?:uhd|hdr|hd|resolution|"
     r"ultra ?hd|textures?|wallpaper|photo(?:graph|graphy)?|render|quality|post-processing))*",
     "a tag"),
    (r"\b(?:\d{3,4}p|\d{3,4} ?x ?\d{3,4}|(?:ultra |full )?u?hdr?|uhd|fhd|hi-?res)\b(?! tv)"
     r"(?: resolution| quality| wallpaper| photograph(?:y)?| photo| render)?", "a tag"),
    (r"\b(?:ultra|super|high|very high|highest|best|top|good|amazing|incredible|extreme|insane|"
     r"studio|highres|absurd|professional|fine|intricate|low)[ -](?:quality|resolution|res|def|"
     r"definition|details?|detailing)\b", "a tag"),
    (r"\b(?:made (?:in|with) |rendered (?:in|with) |in |using )?(?:unreal(?: engine)?(?: ?[45])?|"
     r"octane(?: ?render(?:er|ing|ed)?)?|"
     r"(?:3|2) ?d(?: (?:render|model|art)\w*(?! of))?|v-?ray|"
     r"blender(?: 3d)?(?: render)?|cinema ?4d|c4d|redshift|"
     r"arnold render|corona render(?:er)?|houdini(?: render)?|cryengine|unity(?: engine| 3d)|"
     r"zbrush|quixel(?: megascans)?|photoshop|lumen(?: reflections)?|ray[- ]?traced|"
     r"ray[- ]?tracing|path[- ]?tracing|global illumination|subsurface scattering|"
     r"physically based render\w*|pbr|cel[- ]?shad\w+|cgi|post-?processing)\b"
     r"(?: (?:render(?:ing|er)?|graphics|reflections))?", "a tag"),
    (r"\b(?:shot |taken |captured |photographed )(?:on|with|by|using) (?=[^,;|.]*(?:\d|camera|lens|"
     r"film|iphone|dslr|canon|nikon|sony|leica|kodak|fuji|polaroid|hasselblad))[^,;|]+", "a tag"),
    (r"\b(?:(?:sony|canon|nikon|fuji(?:film)?|kodak|leica|hasselblad|panasonic|olympus|polaroid|"
     r"cinestill|ilford|lomography|arri|gopro|dslr|zeiss|sigma)\b(?: [\w./-]+)*)", "a tag"),
    (r"\b(?:\d{1,4}(?:\.\d)?(?:-\d+)? ?mm(?: film| lens| photo\w*| portrait)?|f ?/? ?\d+(?:\.\d+)?|"
     r"iso ?\d+|1/\d+ ?s?)\b(?! (?:gun|cannon|shell|bullet))", "a tag"),
    (r"\b(?:soft |sharp |selective |shallow |deep |perfect |crisp |in |with )*(?:focus|bokeh|"
     r"depth of field|dof|tilt[- ]shift|long exposure|double exposure|fish-?eye(?: lens)?|"
     r"wide[- ]angle(?: lens| shot| view)?|telephoto(?: lens)?|macro lens|motion blur|"
     r"chromatic aberration|film grain|lens flares?|rule of thirds|golden ratio|"
     r"(?:close[- ]?up|medium|full|long|wide|low|high|aerial|establishing|extreme|cowboy|mid|"
     r"dutch|over-the-shoulder)(?: \w+)?[ -](?:shot|angle|view)(?! of)|bird'?s[- ]eye view|"
     r"(?:full|upper)[- ]body)\b(?: (?:shot|effect|photograph(?:y)?|lens|background|portrait))?",
     "a tag"),
    (r"\b(?:with )?(?:(?!(?:with|of|and|the|an?|in|under|is|are|was|were|be|for|to)\b)[\w-]+ ){0,3}"
     r"(?:lighting|photo-?realism|hyper-?realism|photography|aesthetics?|"
     r"colou?r (?:grading|palette|scheme)|composition)"
     r"(?=\s*(?:$|[,.;:|()\[\]\u2013-]|and\b|with\b|in\b|on\b|by\b|from\b))", "a tag"),
    (r"\b(?:in|with)(?: an?| the)? (?:(?!with\b|of\b|and a\b|the\b|a\b|an\b|in\b|on\b)[\w-]+ ){0,3}"
     r"(?:art )?styles?\b(?! of)", "a style"),
    (r"\b(?:award|prize)[- ]winning\b(?= *(?:,|$))", "a tag"),
)  # fmt: skip
"""Patterns of phrases that are tags wherever they stand, and what they are."""

CREDITS = (
    "art", "artwork", "painted", "drawn", "illustrated", "designed", "photographed", "directed",
    "created", "made", "concept art", "photo", "photograph", "photography", "painting",
    "illustration", "drawing", "render", "portrait", "style", "art style", "digital art",
)  # fmt: skip

ARTISTS = {
    "greg", "rutkowski", "artgerm", "mucha", "wlop", "beeple", "moebius", "giger", "frazetta",
    "kuvshinov", "rossdraws", "bouguereau", "waterhouse", "caravaggio", "rembrandt", "vermeer",
    "monet", "gogh", "picasso", "dali", "klimt", "hokusai", "turner", "bierstadt", "bosch",
    "miyazaki", "ghibli", "shinkai", "kinkade", "loish", "krenz", "cushart", "ruan", "jia",
    "mullins", "makovsky", "beksinski", "leyendecker", "rockwell", "hopper", "warhol", "banksy",
    "basquiat", "escher", "magritte", "dore", "durer", "sargent", "leighton", "alma-tadema",
    "lau", "ferri", "tooth", "wu", "zumi", "guweiz", "sakimichan", "kincade", "villeneuve",
    "kubrick", "tarantino", "scott", "burton", "disney", "pixar", "dreamworks", "marvel",
    "leibovitz", "mccurry", "lachapelle", "adams", "parrish", "rackham", "mignola", "bisley",
    "mcfarlane", "alphonse", "artstation", "cgsociety", "jordan", "grimmer", "kandinsky", "zhong",
    "sparth", "mead", "foss", "syd", "simon", "stalenhag", "stålenhag", "vallejo", "royo", "brom",
    "ghailan", "charlie", "bowater", "peter", "mohrbacher", "fengzhu", "zhu", "craig", "finnian",
    "dan", "mumford", "cameron", "gray", "tyler", "edlin", "yoshitaka", "amano", "junji", "ito",
    "katsuhiro", "otomo", "cezanne", "matisse", "munch", "schiele", "goya", "titian", "raphael",
    "michelangelo", "botticelli", "vinci", "hergé", "tezuka", "toriyama", "gaudi", "wes",
    "anderson", "lois", "baarle", "james", "jean", "tom", "bagshaw", "esao", "andrews", "android",
    "jones", "zdzislaw", "donato", "giancola", "marc", "simonetti", "john", "harris", "bayard",
    "yuumei", "redjuice", "kawacy", "ansel", "annie", "marta", "bevacqua", "stanley",
}  # fmt: skip
"""Words of the names of artists and studios that prompts call upon."""

SMALL = {"and", "&", "of", "the", "de", "van", "von", "la", "le", "da", "di", "der", "del", "x"}

NO_NAMES = {
    "a", "an", "the", "his", "her", "its", "their", "my", "our", "your", "this", "that", "these",
    "those", "two", "three", "four", "some", "many", "several", "one", "each", "hand", "side",
    "with", "on", "in", "at", "under", "near", "from", "to", "over", "for", "wearing", "holding",
    "foot", "boat", "train", "car", "bike", "candlelight", "moonlight", "sunlight",
    "firelight", "night", "day", "water", "trees", "people", "flowers", "fire", "is", "are", "who",
    "which", "while", "as", "trending", "featured", "highly", "8k", "4k", "mountains", "clouds",
    "another", "themselves", "itself", "himself", "herself", "big", "small", "tall", "white",
    "black", "red", "green", "blue", "yellow", "brown", "orange", "pink", "purple", "gray", "grey",
    "large", "old", "little", "wooden", "tiny", "lots", "it", "them", "him", "and a", "or",
}  # fmt: skip

FILLERS = {
    "breath-taking", "breathtaking", "saturated", "overdetailed", "cg",
    "and", "with", "very", "highly", "ultra", "super", "hyper", "extremely", "insanely", "so",
    "incredibly", "intricately", "beautifully", "finely", "perfectly", "in", "on", "at", "by",
    "of", "style", "detailed", "realistic", "photorealistic", "photo-realistic",
    "hyperrealistic", "hyper-realistic", "ultra-realistic", "ultrarealistic", "hyperdetailed",
    "ultra-detailed", "hyper-detailed", "intricate", "cinematic", "dramatic", "professional",
    "elegant", "epic", "stunning", "gorgeous", "vibrant", "vivid", "moody",
    "atmospheric", "ethereal", "dreamy", "whimsical", "mystical", "surreal", "minimalist",
    "minimalistic", "minimal", "ornate", "symmetrical", "smooth", "sharp", "crisp", "clean",
    "volumetric", "ambient", "studio", "natural", "soft", "warm", "cold", "muted", "pastel",
    "monochrome", "colorful", "colourful", "retro", "vintage", "futuristic", "gothic",
    "majestic", "magical", "mysterious", "creepy", "scary", "dark", "bright", "beautiful",
    "amazing", "awesome", "incredible", "perfect", "aesthetic", "artistic", "creative",
    "unique", "complex", "dynamic", "high", "low", "best", "good", "iconic", "nostalgic",
    "romantic", "serene", "peaceful", "noir", "rustic", "abstract", "award-winning",
    "awardwinning", "professionally", "edited", "color", "colored", "graded", "hd", "3d", "2d",
    "isometric", "award", "winning", "trending", "popular", "featured", "exquisite",
    "delicate", "luxurious", "insane", "extreme", "close", "up", "centered", "rich",
    "masterful", "painterly", "stylized", "flat", "glowing", "glossy", "matte", "lifelike",
    "realism", "real", "life", "mesmerizing", "captivating", "enchanting", "inspiring",
    "tonemapped", "tone", "mapped", "rim", "lit", "backlit", "sunlit", "moonlit", "octane",
    "evocative", "fine", "illustrative", "classic", "modern", "hyper-maximalist", "maximalist",
    "official", "great", "no", "more", "many", "most", "lots", "wide", "shot", "for", "sfw",
    "rendered", "over", "weird", "cute", "sexy", "cool", "cozy", "eerie", "ominous", "haunting",
    "gritty", "grim", "grimdark", "lush", "crystal", "clear", "wonderful", "lovely", "refined",
    "immaculate", "hq", "grainy", "post-apocalyptic", "apocalyptic", "8-bit", "16-bit", "32-bit",
    "chiaroscuro", "sepia", "crowded", "desaturated", "kawaii", "lofi", "lo-fi", "misty", "foggy",
    "rainy", "sunny", "cloudy", "hazy", "spooky", "adorable", "hand", "drawn", "grayscale",
    "greyscale", "photographic",
}  # fmt: skip
"""Words that name nothing: a part that has only these is a tag."""

MEDIA = {
    "photo", "photograph", "painting", "illustration", "render", "rendering", "artwork", "art",
    "drawing", "sketch", "portrait", "image", "picture", "watercolor", "watercolour",
}  # fmt: skip
"""Last words that make the first part a tag even with an article."""

TAG_WORDS = {
    "masterpiece", "quality", "resolution", "detail", "details", "detailing", "lighting", "light",
    "illumination", "photography", "photo", "photograph", "picture", "image", "painting", "drawing",
    "sketch", "illustration", "illustrations", "render", "rendering", "renders", "portrait", "art",
    "artwork", "artworks", "concept", "digital", "matte", "oil", "canvas", "watercolor",
    "watercolour", "gouache", "acrylic", "ink", "pencil", "charcoal", "pastel", "lineart",
    "line", "pixel", "fan", "fanart", "anime", "manga", "comic", "comics", "cartoon", "cyberpunk",
    "steampunk", "dieselpunk", "solarpunk", "vaporwave", "synthwave", "fantasy", "sci-fi", "scifi",
    "science", "horror", "noir", "baroque", "rococo", "renaissance", "impressionism",
    "impressionist", "expressionism", "surrealism", "cubism", "romanticism", "minimalism",
    "nouveau", "deco", "pop", "ukiyo-e", "gothic", "realism", "photorealism", "hyperrealism",
    "symmetry", "composition", "aesthetic", "aesthetics", "mood", "atmosphere", "ambiance",
    "ambience", "vibe", "vibes", "tones", "tone", "colors", "colours", "color", "colour", "palette",
    "grading", "contrast", "shadows", "shading", "bokeh", "focus", "lens", "camera", "film",
    "grain", "shot", "close-up", "closeup", "view", "angle", "perspective", "engine", "graphics",
    "wallpaper", "poster", "still", "screenshot", "design",
    "sheet", "splash", "cover", "texture", "textures", "effect", "effects", "reflections",
    "proportions", "anatomy", "background", "style", "hour", "golden", "magic", "rays", "god",
    "dnd", "d&d", "rpg", "mtg", "gathering", "hearthstone", "genshin", "lol", "studio",
    "ghibli", "disney", "pixar", "national", "geographic", "vogue", "editorial",
    "fashion", "documentary", "macro", "wildlife", "architectural",
    "full", "half", "exposure", "field", "depth", "hdr", "raw", "analog",
    "cinema", "vfx", "sfx", "unity", "craftsmanship", "airbrush", "brushstrokes",
    "strokes", "colorful", "photoshoot", "headshot", "selfie", "overlay", "vector",
    "contest", "winner", "pose", "simple", "plain", "blurred",
    "blurry", "white", "black", "monochrome", "award", "winning",
}  # fmt: skip
"""Words of which a part may consist that is not the first and has no article."""

HEADS = {
    "pose", "concept", "concepts", "colouring", "production",
    "masterpiece", "quality", "resolution", "detail", "details", "detailing", "lighting", "light",
    "illumination", "photography", "photo", "photograph", "painting", "drawing", "sketch",
    "illustration", "render", "rendering", "portrait", "art", "artwork", "realism", "photorealism",
    "hyperrealism", "symmetry", "composition", "aesthetic", "aesthetics", "mood", "atmosphere",
    "ambiance", "ambience", "vibe", "vibes", "tones", "tone", "colors", "colours", "color",
    "palette", "grading", "contrast", "shading", "bokeh", "focus", "lens", "camera", "film",
    "grain", "shot", "close-up", "closeup", "view", "angle", "perspective", "engine", "graphics",
    "wallpaper", "poster", "still", "screenshot", "design", "style", "styled", "effect", "effects",
    "proportions", "anatomy", "background", "hour", "photoshoot", "headshot", "rendered", "field",
    "texture", "textures", "brushstrokes", "strokes", "canvas", "watercolor", "lit", "fanart",
    "magazine", "contest", "winner", "fantasy", "horror", "punk", "exposure", "core", "theme",
    "nouveau", "deco", "movie", "craftsmanship", "feel", "feeling", "detailed", "realistic",
    "outline", "outlines", "scale", "visual", "visuals", "asset", "assets",
    "animation", "comic", "manga", "anime", "cartoon", "series", "game", "genre",
}  # fmt: skip
"""Last words that make a part a tag that is not the first and has no article."""
