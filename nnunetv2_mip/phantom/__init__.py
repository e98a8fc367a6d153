"""Phantoms, simulated patients with known lesions: anatomy, disease, scanner, cohorts on disk."""
