"""Reports of a check: one module a format. `words` holds what all of them say.

Heavy libraries are imported where a page is made, not when this package is.
"""
