"""Where images come from, and how their pixels become what model and screen see."""
