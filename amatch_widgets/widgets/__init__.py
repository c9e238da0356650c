"""The dashboard: views of a session, and nothing else."""
