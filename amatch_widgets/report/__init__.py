"""Figures to keep and a report to send: what a session found, on paper."""
