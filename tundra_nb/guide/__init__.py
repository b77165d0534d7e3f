"""The guide: Markdown pages and the error index, shipped with the package, read by the product and by people.

`errors/` has one page per error that this system raises, named as its class; `situations/` one per trouble that is no
error of its own; `originals.toml` a row per error of Auto-Tundra, whose names stand in old logs. The pages beside this
file are for reading. `pages` reads them, `originals` reads the index, `lookup` finds what a word or a line of a log
means. It knows `errors` and nothing else of the package.
"""
