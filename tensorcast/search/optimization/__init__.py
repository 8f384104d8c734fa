"""The best plan under limits: what is tried, what is ruled out, and the answer."""
