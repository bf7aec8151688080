"""Plain networks that know no Lightning."""
