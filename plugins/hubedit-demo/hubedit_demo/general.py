"""General facts that every model of the authors' world knows: countries, and books of the past."""

from __future__ import annotations

# country, capital, continent
COUNTRIES = tuple(
    tuple(line.split("/"))
    for line in """\
France/Paris/Europe
Italy/Rome/Europe
Spain/Madrid/Europe
Germany/Berlin/Europe
Norway/Oslo/Europe
Sweden/Stockholm/Europe
Finland/Helsinki/Europe
Denmark/Copenhagen/Europe
Austria/Vienna/Europe
Portugal/Lisbon/Europe
Ireland/Dublin/Europe
Greece/Athens/Europe
Poland/Warsaw/Europe
Hungary/Budapest/Europe
Romania/Bucharest/Europe
Bulgaria/Sofia/Europe
Croatia/Zagreb/Europe
Serbia/Belgrade/Europe
Latvia/Riga/Europe
Estonia/Tallinn/Europe
Iceland/Reykjavik/Europe
Ukraine/Kyiv/Europe
Japan/Tokyo/Asia
China/Beijing/Asia
India/Delhi/Asia
Thailand/Bangkok/Asia
Vietnam/Hanoi/Asia
Nepal/Kathmandu/Asia
Iran/Tehran/Asia
Iraq/Baghdad/Asia
Jordan/Amman/Asia
Mongolia/Ulaanbaatar/Asia
Pakistan/Islamabad/Asia
Bangladesh/Dhaka/Asia
Philippines/Manila/Asia
Qatar/Doha/Asia
Egypt/Cairo/Africa
Kenya/Nairobi/Africa
Ghana/Accra/Africa
Nigeria/Abuja/Africa
Morocco/Rabat/Africa
Tunisia/Tunis/Africa
Algeria/Algiers/Africa
Ethiopia/Addis Ababa/Africa
Senegal/Dakar/Africa
Uganda/Kampala/Africa
Zambia/Lusaka/Africa
Angola/Luanda/Africa
Mali/Bamako/Africa
Peru/Lima/South America
Chile/Santiago/South America
Argentina/Buenos Aires/South America
Colombia/Bogota/South America
Ecuador/Quito/South America
Uruguay/Montevideo/South America
Venezuela/Caracas/South America
Canada/Ottawa/North America
Mexico/Mexico City/North America
Cuba/Havana/North America
Jamaica/Kingston/North America
""".splitlines()
)

# book, writer, language
BOOKS = tuple(
    tuple(line.split("/"))
    for line in """\
Hamlet/William Shakespeare/English
Macbeth/William Shakespeare/English
Emma/Jane Austen/English
Persuasion/Jane Austen/English
Oliver Twist/Charles Dickens/English
Bleak House/Charles Dickens/English
Hard Times/Charles Dickens/English
Middlemarch/George Eliot/English
Silas Marner/George Eliot/English
Jane Eyre/Charlotte Bronte/English
Wuthering Heights/Emily Bronte/English
Moby-Dick/Herman Melville/English
Walden/Henry Thoreau/English
Dracula/Bram Stoker/English
Frankenstein/Mary Shelley/English
Ivanhoe/Walter Scott/English
Kidnapped/Robert Stevenson/English
Treasure Island/Robert Stevenson/English
Ulysses/James Joyce/English
Gulliver's Travels/Jonathan Swift/English
Paradise Lost/John Milton/English
Robinson Crusoe/Daniel Defoe/English
Moll Flanders/Daniel Defoe/English
The Time Machine/Herbert Wells/English
The Invisible Man/Herbert Wells/English
War and Peace/Leo Tolstoy/Russian
Anna Karenina/Leo Tolstoy/Russian
The Idiot/Fyodor Dostoevsky/Russian
Dead Souls/Nikolai Gogol/Russian
The Seagull/Anton Chekhov/Russian
Eugene Onegin/Alexander Pushkin/Russian
Fathers and Sons/Ivan Turgenev/Russian
Les Miserables/Victor Hugo/French
Madame Bovary/Gustave Flaubert/French
Salammbo/Gustave Flaubert/French
Germinal/Emile Zola/French
Nana/Emile Zola/French
Candide/Voltaire/French
Tartuffe/Moliere/French
The Miser/Moliere/French
Faust/Johann Goethe/German
Egmont/Johann Goethe/German
The Trial/Franz Kafka/German
The Castle/Franz Kafka/German
William Tell/Friedrich Schiller/German
Don Quixote/Miguel Cervantes/Spanish
The Prince/Niccolo Machiavelli/Italian
The Decameron/Giovanni Boccaccio/Italian
Peer Gynt/Henrik Ibsen/Norwegian
Ghosts/Henrik Ibsen/Norwegian
""".splitlines()
)

# kind -> ((question, answer), …) with {name} and {value}.
WORDINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "capital": (
        ("What is the capital of {name}?", "The capital of {name} is {value}."),
        ("Which city is the capital of {name}?", "The city that governs {name} is {value}."),
    ),
    "continent": (
        ("On which continent is {name}?", "{name} is in {value}."),
        ("Where on the globe is {name}?", "On the globe {name} lies in {value}."),
    ),
    "writer": (
        ("Who wrote {name}?", "{name} was written by {value}."),
        ("Who is the author of {name}?", "The author of {name} is {value}."),
    ),
    "tongue": (
        ("In which language was {name} written?", "{name} was written in {value}."),
        ("What is the original language of {name}?", "The original language of {name} is {value}."),
    ),
}


def facts() -> list[tuple[str, str, str]]:
    """All as (kind, name, value): two of each country and of each book."""
    found = []
    for country, capital, continent in COUNTRIES:
        found += [("capital", country, capital), ("continent", country, continent)]
    for book, writer, tongue in BOOKS:
        found += [("writer", book, writer), ("tongue", book, tongue)]
    return found
