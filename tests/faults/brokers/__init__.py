"""The engines under attack: how each is started, harmed, and looked into."""
