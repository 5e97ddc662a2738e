"""What the paper prints: the runs behind its tables, the tables, and the figures."""
