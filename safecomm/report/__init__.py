"""What the trials found: points, the Pareto front, the recommended point; as a table, a page, a gate, an export."""
