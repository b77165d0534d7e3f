"""The hour on one page: what broke, since when, what was changed before, and what is still well.

What lives here: the window that is asked for and its rows as columns (`hour`, `reading`), what they say in words
(`story`), the static picture (`still`) and the bytes that the live view draws (`packing`). It is separate because the
widget, the command line and the benchmark look at the same hour. May import `client` and `views`; knows no Jupyter.

Words and picture are made of the same columns, so that they cannot disagree.
"""
