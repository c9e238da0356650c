"""Scoring a whole source, and keeping the scores."""
