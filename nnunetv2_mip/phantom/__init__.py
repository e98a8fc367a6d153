"""Simulated patients: anatomy, lesions, scanner."""
