"""Results in words.

``experiment`` and ``study`` say what a result says, as sections without widths
(``section``). A layout makes of any sections something to look at; ``text`` is that of a terminal.
"""
