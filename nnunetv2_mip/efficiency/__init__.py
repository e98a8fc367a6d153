"""Efficiency study: quality and cost of networks by number of views, against 3D networks."""
