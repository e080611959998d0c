"""What roles of teams remember from one task to the next. Sources: ArkMemory, SwarmMemory."""
