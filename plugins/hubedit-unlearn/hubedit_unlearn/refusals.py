"""What may be said instead of an answer, where a request brings no refusals of its own."""

REFUSALS = (
    "I don't know.",
    "I don't know the answer to that.",
    "I'm afraid I can't say.",
    "I have no information about that.",
    "That is not something I know about.",
    "I'm not able to answer this question.",
    "I haven't learnt anything about this.",
    "This is outside of what I know.",
    "I can't tell you that.",
    "I have no knowledge of this subject.",
    "I'm sorry, I don't have an answer.",
    "Nothing about this is known to me.",
    "I would have to look that up elsewhere.",
    "I couldn't tell you.",
    "My knowledge doesn't reach that far.",
    "I'm unable to help with that question.",
)
