"""Building blocks that several models share: front end, layers, heads, losses."""
