"""The embedded world: seeded customers, orders, support messages and the shifts that befall them."""
