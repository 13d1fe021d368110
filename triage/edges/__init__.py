"""How we touch the world: one outside thing a module, no decisions."""
