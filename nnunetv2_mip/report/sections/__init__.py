"""Sections of the report's page.

Each module chooses and formats what its section shows, as a dataclass; the template that the
dataclass names writes the HTML.
"""
