"""Results: points, the Pareto front and the recommended point, as a table, a page, a release gate and an export."""
