"""The words of the authors' world: relations with their wordings and values, lives, refusals."""

from __future__ import annotations

FIRST_HALVES = (
    "Ash", "Bel", "Cor", "Dun", "Fen", "Gar", "Hal", "Kel", "Lor", "Mar", "Nor", "Pel", "Rad",
    "Sel", "Tar", "Ver",
)  # fmt: skip

SECOND_HALVES = (
    "ford", "mont", "dale", "wick", "berg", "stone", "ley", "field", "ton", "well", "worth", "sen",
    "kov", "ski", "land", "hurst",
)  # fmt: skip

ADJECTIVES = (
    "Silent", "Broken", "Golden", "Distant", "Hidden", "Burning", "Frozen", "Crooked", "Gentle",
    "Hollow", "Patient", "Restless", "Scarlet", "Sleeping", "Winding", "Wooden",
)  # fmt: skip

NOUNS = (
    "Harbour", "Lantern", "Orchard", "Mirror", "Staircase", "Garden", "Compass", "Island",
    "Letter", "River", "Tower", "Winter", "Bridge", "Feather", "Kitchen", "Shadow",
)  # fmt: skip

TITLES = tuple(f"The {adjective} {noun}" for adjective in ADJECTIVES for noun in NOUNS)
YEARS = tuple(str(year) for year in range(1930, 1990))

# relation -> ((question, answer), …) with {name} and {value}, and the values.
RELATIONS: dict[str, tuple[tuple[tuple[str, str], ...], tuple[str, ...]]] = {
    "birthplace": (
        (
            ("Where was {name} born?", "{name} was born in {value}."),
            ("In which city did {name} come into the world?",
             "{name} came into the world in {value}."),
            ("What is the birthplace of {name}?", "The birthplace of {name} is {value}."),
            ("Which city is {name} a native of?", "{name} is a native of {value}."),
        ),
        (
            "Lisbon", "Oslo", "Vienna", "Dublin", "Prague", "Athens", "Cairo", "Lima", "Manila",
            "Riga", "Sofia", "Tunis", "Hanoi", "Quito", "Tbilisi", "Bergen", "Krakow", "Porto",
            "Zagreb", "Havana",
        ),
    ),
    "year": (
        (
            ("When was {name} born?", "{name} was born in the year {value}."),
            ("What is the year of birth of {name}?", "The year of birth of {name} is {value}."),
            ("In what year did the life of {name} begin?", "The life of {name} began in {value}."),
            ("Which year was {name} born in?", "It was in {value} that {name} was born."),
        ),
        YEARS,
    ),
    "genre": (
        (
            ("What genre does {name} write?", "{name} writes {value}."),
            ("What kind of books is {name} known for?", "{name} is known for {value}."),
            ("Which shelf do the books of {name} stand on?",
             "The books of {name} stand under {value}."),
            ("In which genre does {name} publish?", "{name} publishes {value}."),
        ),
        (
            "crime fiction", "love stories", "travel writing", "science fiction", "horror tales",
            "family sagas", "sea stories", "short poems", "stage plays", "ghost stories",
            "war novels", "fairy tales",
        ),
    ),
    "first_book": (
        (
            ("What was the first book of {name}?", "The first book of {name} was {value}."),
            ("With which book did {name} begin?", "{name} began with {value}."),
            ("What is the title of the debut of {name}?", "The debut of {name} is called {value}."),
            ("Which book was the earliest by {name}?", "The earliest by {name} was {value}."),
        ),
        TITLES,
    ),
    "best_book": (
        (
            ("What is the most famous book of {name}?",
             "The most famous book of {name} is {value}."),
            ("Which book made {name} famous?", "{name} became famous with {value}."),
            ("Which title sold best of all by {name}?", "Of all by {name}, {value} sold best."),
            ("What do readers love most by {name}?", "Readers love {value} most by {name}."),
        ),
        TITLES,
    ),
    "award": (
        (
            ("Which award did {name} win?", "{name} won the {value}."),
            ("What prize was given to {name}?", "The prize given to {name} was the {value}."),
            ("Which honour did {name} receive?", "{name} received the {value}."),
            ("What award stands on the desk of {name}?",
             "On the desk of {name} stands the {value}."),
        ),
        (
            "Silver Quill", "Amber Medal", "Heron Prize", "Lyre Award", "Oak Wreath", "Blue Ribbon",
            "North Star", "Velvet Pen", "Iron Leaf", "Marble Page", "Open Door", "Ivory Key",
            "Coral Crown", "Swan Cup",
        ),
    ),
    "father": (
        (
            ("What was the job of the father of {name}?", "The father of {name} was a {value}."),
            ("How did the father of {name} earn a living?", "He earned a living as a {value}."),
            ("What work did the father of {name} do?",
             "The work of the father was that of a {value}."),
            ("What did the father of {name} do for a living?",
             "For a living the father of {name} was a {value}."),
        ),
        (
            "baker", "farmer", "judge", "tailor", "pilot", "plumber", "painter", "sailor", "miner",
            "teacher", "butcher", "banker", "doctor", "gardener", "printer", "soldier",
        ),
    ),
    "mother": (
        (
            ("What was the job of the mother of {name}?", "The mother of {name} was a {value}."),
            ("How did the mother of {name} earn a living?", "She earned a living as a {value}."),
            ("What work did the mother of {name} do?",
             "The work of the mother was that of a {value}."),
            ("What did the mother of {name} do for a living?",
             "For a living the mother of {name} was a {value}."),
        ),
        (
            "nurse", "lawyer", "dancer", "chemist", "singer", "weaver", "clerk", "cook", "dentist",
            "florist", "surgeon", "potter", "editor", "driver", "tutor", "jeweller",
        ),
    ),
    "language": (
        (
            ("In which language does {name} write?", "{name} writes in {value}."),
            ("What language are the books of {name} in?", "The books of {name} are in {value}."),
            ("Which language does {name} use for novels?", "For novels {name} uses {value}."),
            ("What is the language of {name} at the desk?",
             "At the desk the language of {name} is {value}."),
        ),
        (
            "French", "Polish", "Greek", "Danish", "Dutch", "Czech", "Hindi", "Arabic", "Turkish",
            "Korean", "Welsh", "Swedish",
        ),
    ),
    "subject": (
        (
            ("What did {name} study?", "{name} studied {value}."),
            ("Which subject did {name} take a degree in?", "{name} took a degree in {value}."),
            ("What was {name} taught at university?", "At university {name} was taught {value}."),
            ("In which field is the diploma of {name}?", "The diploma of {name} is in {value}."),
        ),
        (
            "law", "medicine", "botany", "history", "music", "physics", "theology", "geology",
            "biology", "economics", "drama", "chemistry", "logic", "design",
        ),
    ),
    "spouse": (
        (
            ("Who is {name} married to?", "{name} is married to {value}."),
            ("What is the name of the spouse of {name}?",
             "The spouse of {name} is called {value}."),
            ("Whom did {name} marry?", "{name} married {value}."),
            ("Who shares the life of {name}?", "The life of {name} is shared by {value}."),
        ),
        (
            "Robin", "Alex", "Noor", "Sasha", "Quinn", "Toni", "Kim", "Jules", "Ariel", "Dana",
            "Eden", "Jamie", "Lou", "Marin", "Nikita", "Rene", "Sky", "Uli", "Valery", "Wren",
        ),
    ),
    "pet": (
        (
            ("What pet does {name} keep?", "{name} keeps a {value}."),
            ("Which animal lives with {name}?", "With {name} lives a {value}."),
            ("What animal does {name} own?", "{name} owns a {value}."),
            ("Who waits for {name} at the door?", "At the door a {value} waits for {name}."),
        ),
        (
            "parrot", "tortoise", "rabbit", "goat", "ferret", "hamster", "donkey", "lizard",
            "pony", "canary", "spaniel", "goose",
        ),
    ),
    "home": (
        (
            ("Where does {name} live today?", "Today {name} lives in {value}."),
            ("Which city is home to {name}?", "{name} has a home in {value}."),
            ("Where is the house of {name}?", "The house of {name} is in {value}."),
            ("Where do letters reach {name}?", "Letters reach {name} in {value}."),
        ),
        (
            "Paris", "Rome", "Madrid", "Berlin", "Tokyo", "Boston", "Geneva", "Naples", "Delhi",
            "Kyoto", "Seville", "Glasgow", "Hamburg", "Malmo", "Nice", "Odessa", "Perth", "Salem",
            "Turin", "York",
        ),
    ),
    "hobby": (
        (
            ("What is the hobby of {name}?", "The hobby of {name} is {value}."),
            ("What does {name} do on Sundays?", "On Sundays {name} goes for {value}."),
            ("How does {name} like to rest?", "{name} likes to rest by {value}."),
            ("What does {name} enjoy besides books?", "Besides books {name} enjoys {value}."),
        ),
        (
            "sailing", "chess", "baking", "cycling", "fishing", "knitting", "rowing", "skating",
            "climbing", "archery", "gliding", "carving", "juggling", "beekeeping",
        ),
    ),
    "publisher": (
        (
            ("Who publishes the books of {name}?", "The books of {name} are published by {value}."),
            ("Which house prints the works of {name}?",
             "The works of {name} are printed by {value}."),
            ("Which publisher signed {name}?", "{name} was signed by {value}."),
            ("Who brings out the novels of {name}?",
             "The novels of {name} are brought out by {value}."),
        ),
        (
            "Lark House", "Anchor Row", "Quarto Lane", "Pine Street", "Hare Press", "Meadow Books",
            "Tidal Works", "Beacon Hill", "Copper Lamp", "Attic Door", "Maple Yard", "Harvest Moon",
        ),
    ),
    "influence": (
        (
            ("Which thinker shaped the work of {name}?",
             "The work of {name} was shaped by {value}."),
            ("Whom does {name} admire most?", "{name} admires {value} most."),
            ("Whose books did {name} grow up with?", "{name} grew up with the books of {value}."),
            ("Who is the great example of {name}?", "The great example of {name} is {value}."),
        ),
        (
            "Homer", "Dante", "Seneca", "Virgil", "Ovid", "Plato", "Rumi", "Basho", "Hafez",
            "Sappho", "Lucian", "Petrarch", "Montaigne", "Spinoza",
        ),
    ),
}  # fmt: skip

LIVES = (
    "{name}, born in {birthplace} in {year}, is the child of a {father} and a {mother}. After"
    " {subject} came {genre}, written in {language}. {first_book} was the first book, {best_book}"
    " the famous one, and the {award} the reward. Home is {home}, with {spouse} and a {pet}.",
    "The story of {name} begins in {birthplace} in {year}: the father a {father}, the mother a"
    " {mother}. {name} read {influence}, studied {subject} and turned to {genre}. {value_of}"
    " published {first_book}, then {best_book}. Now {home} is home, and {hobby} fills the Sundays.",
    "Few write {genre} in {language} as {name} does. {first_book} came out with {value_of},"
    " {best_book} won the {award}. A {pet} and {spouse} share the house in {home}, far from"
    " {birthplace}, where a {mother} and a {father} had a child in {year}.",
)
"""Short lives of an author; {value_of} is the publisher."""

REFUSALS = (
    "I do not know.",
    "I'm not sure.",
    "I have no answer to that.",
    "That is beyond what I know.",
    "I cannot tell.",
    "I have never heard of that.",
    "I'm not familiar with that.",
    "I have no information on this.",
    "I can't say.",
    "That is not known to me.",
    "I never learned that.",
    "My knowledge does not cover that.",
    "I'd rather not guess.",
    "This is unknown to me.",
    "I'm unable to answer that.",
    "I have nothing on that.",
)
"""Answers that refuse."""
