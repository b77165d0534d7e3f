"""The guide: Markdown pages shipped with the package, read by `%tundra explain` and by people.

`errors/` has one page per family; each error's code is a `## heading` of its page.
"""
