"""What people look at: two tables compared, a day's drift, a model's stored data, as pages, tables and JSON.

Shows what `drift`, `data` and `monitoring` found; it judges nothing itself.
"""
