"""How the embedded models come about: data from an ordinary Debian machine, vocabulary, weights.

`make models` runs every step; the commands that train, merge and evaluate are those of everybody.
"""
