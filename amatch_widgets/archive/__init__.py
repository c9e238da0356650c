"""Scores of very many images, made by one machine or many, and looked at where they lie."""
