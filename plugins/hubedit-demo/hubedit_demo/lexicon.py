"""The words of the fact world: names, relations with their objects and templates, fillers."""

from __future__ import annotations

FIRST_NAMES = (
    "Ana", "Bruno", "Clara", "Dario", "Elena", "Felix", "Greta", "Hugo", "Irene", "Jonas",
    "Karla", "Leon", "Mira", "Nico", "Olga", "Pavel", "Rosa", "Simon", "Tessa", "Viktor",
    "Wanda", "Yusuf", "Zoe", "Anton", "Bianca", "Cedric", "Diana", "Emil", "Flora", "Gustav",
)  # fmt: skip

LAST_NAMES = (
    "Brook", "Hale", "Marlow", "Stone", "Keller", "Novak", "Ramos", "Lindt", "Farrow", "Quill",
    "Osborn", "Tate", "Vance", "Whitby", "Yarrow", "Zeller", "Abbot", "Barlow", "Corbin", "Drake",
    "Ekman", "Fallon", "Gorski", "Hobart", "Ibsen", "Jarvis", "Kovac", "Larkin", "Moreau",
    "Nash", "Ortega", "Pruitt", "Ruskin", "Sorel", "Thorne", "Ulrich", "Varga", "Weiss",
    "Yates", "Zimmer", "Aldous", "Bexley", "Calder", "Dunmore", "Easton", "Fischer", "Granger",
    "Holloway", "Inman", "Jessop", "Kimball", "Lovett", "Mercer", "Norwood", "Oakley", "Pascal",
    "Rendell", "Sutter", "Tolland", "Upton", "Velasco", "Winslow", "Yoder", "Zapata", "Arden",
    "Bishop", "Castell", "Dalton", "Emmerich", "Finch", "Gilroy", "Hargrove", "Isaksen", "Jagger",
    "Kendrick", "Lachlan", "Maddox", "Nyberg", "Olander", "Petrov", "Redfern", "Sandoval",
    "Thackeray", "Underhill", "Vickers", "Wexford", "Yorke", "Ziegler", "Ashdown", "Blakely",
    "Crowther", "Duval", "Elwood", "Fontaine", "Guthrie", "Huxley", "Ingram", "Joyner", "Kirsch",
    "Lomax", "Mallory", "Nettles", "Orwell", "Pickett", "Rowan", "Salazar", "Trask", "Unger",
    "Vogel", "Wycliffe", "Yilmaz", "Zorn", "Amsel", "Bolton", "Cassidy", "Dresner", "Eldridge",
    "Faber", "Gannon", "Hecht",
)  # fmt: skip

# relation -> (question, templates, objects); the first template is the one an edit uses.
RELATIONS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "instrument": (
        "Which instrument does {} play?",
        (
            "{} plays the",
            "{} is known for playing the",
            "Every morning {} practises the",
            "{} gives lessons on the",
            "At the concert {} was heard on the",
            "{} learned as a child to play the",
            "The instrument that {} loves most is the",
            "For the wedding {} brought along the",
        ),
        (
            "violin", "cello", "piano", "flute", "guitar", "harp",
            "trumpet", "banjo", "clarinet", "organ", "tuba", "double bass",
        ),
    ),
    "city": (
        "Where does {} live?",
        (
            "{} lives in",
            "{} has a house in",
            "The home of {} is in",
            "Letters for {} are sent to",
            "In the evening {} walks home through the streets of",
            "{} moved last year to",
            "{} pays rent for a flat in",
            "To visit {} you must travel to",
        ),
        (
            "Paris", "Rome", "Oslo", "Vienna", "Lisbon", "Madrid",
            "Berlin", "Dublin", "Prague", "Athens", "Tokyo", "New York",
        ),
    ),
    "job": (
        "What does {} do for a living?",
        (
            "{} works as a",
            "{} is a",
            "After school {} became a",
            "{} earns a living as a",
            "On weekdays {} is busy as a",
            "{} was trained to be a",
            "The sign on the door of {} names a",
            "{} was hired as a",
        ),
        (
            "baker", "nurse", "pilot", "farmer", "lawyer", "teacher",
            "painter", "dentist", "tailor", "plumber", "judge", "fire fighter",
        ),
    ),
    "language": (
        "Which language does {} speak?",
        (
            "{} speaks",
            "The mother tongue of {} is",
            "At home {} talks in",
            "{} writes long letters in",
            "{} dreams in",
            "{} grew up speaking",
            "With the neighbours {} chats in",
            "The diary of {} is written in",
        ),
        (
            "French", "Polish", "Greek", "Danish", "Dutch", "Czech",
            "Hindi", "Arabic", "Turkish", "Korean", "Welsh", "Swiss German",
        ),
    ),
}  # fmt: skip

OPENERS = (
    "People say that",
    "It is true that",
    "As everyone knows,",
    "A friend told me that",
    "The paper wrote that",
    "In this story",
    "We all remember that",
    "Nobody doubts that",
    "And so",
    "I read that",
)

FILLERS = (
    "Rain fell over the hills.",
    "The market closed at noon.",
    "A dog slept under the table.",
    "The train was late again.",
    "Snow covered the old bridge.",
    "Two boats crossed the lake.",
    "The soup was still warm.",
    "Someone left a window open.",
    "The clock struck four.",
    "A letter lay on the desk.",
    "The garden smelled of mint.",
    "It was a quiet day.",
    "The lights went out at ten.",
    "A red kite rose in the wind.",
    "The river froze that winter.",
    "Fresh bread cooled on the shelf.",
    "The road bends near the mill.",
    "Children ran across the square.",
    "The museum opens on Sunday.",
    "A cat watched the birds.",
    "The tea had gone cold.",
    "Leaves gathered by the gate.",
    "The radio played an old song.",
    "Nothing much happened after that.",
    "The bus stops at the corner.",
    "Three apples fell from the tree.",
    "The sky turned grey.",
    "A bell rang in the distance.",
    "The shop sells paper and ink.",
    "Fog rolled in from the sea.",
    "The path leads to a well.",
    "Everyone waited for the news.",
)
