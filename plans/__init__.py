"""Planner classes and plans presets (JSON)."""
