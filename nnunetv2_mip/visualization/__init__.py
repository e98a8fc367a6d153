"""Figures of studies: rotating MIPs, contact sheets, view sheets."""
